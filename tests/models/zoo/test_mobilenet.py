from tutelage.models.zoo.mobilenet import mobilenetv2


def test_parameters(parameters):
    assert parameters("mobilenetv2", 100) == 812_836
    assert sum(p.numel() for p in mobilenetv2(100, width=1.0).parameters()) == 2_353_060


def test_maps(maps):
    assert maps("mobilenetv2") == ([(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)], 1280)


def test_parameters_of_tfkd(parameters):
    counts = tuple(parameters("tfkd_mobilenetv2", classes) for classes in (10, 100, 200))
    assert counts == (2_254_090, 2_369_380, 2_497_480)
