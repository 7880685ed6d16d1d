import pytest

from tutelage.errors import UserError
from tutelage.models.catalogue import CATALOGUE, factory, names
from tutelage.models.loading import load_network


def test_names_build():
    assert "resnet20" in names()
    assert factory("tiny_cnn") is CATALOGUE["tiny_cnn"]


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UserError, match="resnet20"):
        factory("resnet21")


COUNT = "as a whole number of 1 or more"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny_cnn,width=x", f"tiny_cnn takes width {COUNT}, not 'x'"),
        ("tiny_cnn,width=-3", f"tiny_cnn takes width {COUNT}, not -3"),
        ("tiny_cnn,width=0", f"tiny_cnn takes width {COUNT}, not 0"),
        ("tiny_cnn,width=2.5", f"tiny_cnn takes width {COUNT}, not 2.5"),
        ("tiny_cnn,width=none", f"tiny_cnn takes width {COUNT}, not None"),
        ("tiny_cnn,width=true", f"tiny_cnn takes width {COUNT}, not True"),
        ("tiny_cnn,in_channels=0", f"tiny_cnn takes in_channels {COUNT}, not 0"),
        ("tiny_resnet,stem=x", f"tiny_resnet takes stem {COUNT}, not 'x'"),
        ("vgg8,depths=(1,1)", "vgg8 takes depths as \\(a whole number of 1 or more, .*, not \\(1, 1\\)"),
        ("tfkd_densenet121,depths=(1,0)", "takes depths as a list in brackets, each item a whole number"),
        ("wrn_16_2,dropout=2", "takes dropout as a number from 0 to below 1, not 2"),
        ("resnet50_cifar,kaiming=3", "takes kaiming as true or false, not 3"),
        ("mobilenetv2,width=0.001", "takes width as a number of 0.0625 or more, not 0.001"),
        ("shufflev1,groups=7", "shufflev1 cannot be built with .*groups=7: ValueError"),
    ],
)
def test_options_that_do_not_fit_are_told(text, message):
    with pytest.raises(UserError, match=message):
        load_network(text, num_classes=3)
