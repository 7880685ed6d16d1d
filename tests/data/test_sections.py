"""An augmentation for each section of a batch."""

import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.sections import SectionedAugmentation
from tutelage.errors import UserError

NONE, WEAK, STRONG = Augmentation(), Augmentation.parse("flip"), Augmentation.parse("crop:1,colour:0.4")


def drawn(n=12):
    both = SectionedAugmentation(sections=(NONE, WEAK, STRONG))
    return both, both.sample(torch.Generator().manual_seed(0), n, (5, 6))


def test_each_section_is_changed_by_its_own_augmentation():
    both, parameters = drawn()
    images = torch.randint(256, (12, 3, 5, 6), dtype=torch.uint8)
    changed = both.apply(images, parameters)
    assert parameters.shape == (12, STRONG.width)
    assert torch.equal(changed[:4], images[:4])
    assert torch.equal(changed[4:8], WEAK.apply(images[4:8], parameters[4:8, : WEAK.width]))
    assert torch.equal(changed[8:], STRONG.apply(images[8:], parameters[8:]))
    assert not torch.equal(changed[8:], images[8:])


def test_maps_move_with_their_images():
    both, parameters = drawn()
    maps = torch.arange(30).view(1, 5, 6).repeat(12, 1, 1)
    moved = both.apply_to_maps(maps, parameters, outside=-1)
    assert torch.equal(moved[4:8], WEAK.apply_to_maps(maps[4:8], parameters[4:8, : WEAK.width], outside=-1))


def test_a_process_gets_equal_parts_of_the_sections():
    both, parameters = drawn()
    images = torch.randint(256, (12, 3, 5, 6), dtype=torch.uint8)
    mine = torch.arange(12).view(3, 4)[:, ::2].flatten()
    assert torch.equal(both.apply(images[mine], parameters[mine]), both.apply(images, parameters)[mine])


def test_it_is_named_by_its_sections_and_refuses_unequal_ones():
    both, parameters = drawn()
    assert str(both) == "none | flip | crop:1,colour:0.4"
    assert both
    assert not SectionedAugmentation(sections=(NONE, NONE))
    with pytest.raises(UserError, match="10 images are not 3 equal sections"):
        both.apply(torch.zeros(10, 3, 5, 6), parameters[:10])
