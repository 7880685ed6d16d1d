import pytest

COUNTS = {"vgg8": 3_965_028, "vgg11": 9_277_284, "vgg13": 9_462_180, "vgg16": 14_774_436, "vgg19": 20_086_692}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameters(name, count, parameters):
    assert parameters(name, 100) == count


@pytest.mark.parametrize("name", COUNTS)
def test_maps(name, maps):
    assert maps(name) == ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)], 512)


def test_large_images_are_pooled_once_more(maps):
    assert maps("vgg8", side=64) == ([(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)], 512)
