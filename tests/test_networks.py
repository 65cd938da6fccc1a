# SPDX-License-Identifier: Apache-2.0
"""The networks: sizes, shapes, scripting, and what conditions them."""

from __future__ import annotations

from itertools import product
from typing import Any, TypeVar

import pytest
import torch
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.architecture import architecture_of
from scripts.networks.cell_average import cell_average, spread
from scripts.networks.factory import check_network, make_network
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.plane_conv import PlaneConv, PlaneConvTranspose, fold_planes
from scripts.networks.srunet import LARGEST_FACTOR, TOTAL_STRIDE, SRUNet
from scripts.networks.trained_settings import TrainedSettings, agree, trained_settings
from scripts.reconstruction.axial_inferer import AxialInferer
from torch import nn

SMALL: dict[str, Any] = {"widths": (4, 6, 8, 10)}


Network = TypeVar("Network", bound=nn.Module)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(build):
    """Build without memory: counting needs none."""
    with torch.device("meta"):
        return build()


def trained(network: Network, seed: int = 0) -> Network:
    """A network as if it had been trained a while: what starts at zero is not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)  # so that what is deepest in the network still shows in the output
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def random_planes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def aenet() -> AENet:
    torch.manual_seed(0)
    return trained(AENet(**SMALL)).eval()


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nafnet_has_the_papers_size():
    network = on_meta(lambda: ConditionalNAFNet(64, (14, 1, 1, 1), 1, (1, 1, 1, 1)))
    assert parameters(network) == 20_400_261


@pytest.mark.parametrize(
    "widths, expected",
    [((64, 128, 256, 512), 41_914_052), ((32, 64, 128, 256), 10_504_644), ((16, 32, 64, 128), 2_641_220)],
)
def test_aenet_sizes(widths, expected):
    assert parameters(on_meta(lambda: AENet(widths))) == expected


@pytest.mark.parametrize("factor", [2, 7, 8, 9, 22])
def test_srunet_has_the_papers_size_at_any_factor(factor):
    assert parameters(on_meta(lambda: SRUNet(factor))) == 2_408_257


# ---- ConditionalNAFNet -----------------------------------------------------------------------------------------------


@pytest.fixture
def nafnet() -> ConditionalNAFNet:
    torch.manual_seed(0)
    return trained(ConditionalNAFNet(8, (1, 1), 1, (1, 1))).eval()


@pytest.mark.parametrize("height, width", [(37, 50), (121, 128), (32, 64), (5, 4)])
def test_nafnet_takes_any_size(nafnet, height, width):
    out = nafnet(torch.rand(2, 2, height, width), torch.tensor([1, 100]))
    assert out.shape == (2, 1, height, width)
    assert torch.isfinite(out).all()


def test_nafnet_knows_the_state(nafnet):
    x = random_planes(1, 2, 32, 32).repeat(2, 1, 1, 1)
    early, late = nafnet(x, torch.tensor([3, 90]))
    assert (early - late).abs().mean() > 1e-4
    assert torch.allclose(early, nafnet(x[:1], torch.tensor([3]))[0], atol=1e-5)


def test_nafnet_reads_both_channels(nafnet):
    x, t = random_planes(1, 2, 32, 32), torch.tensor([50])
    for channel in (0, 1):
        other = x.clone()
        other[:, channel] += 0.1 * random_planes(1, 32, 32, seed=1)
        assert (nafnet(other, t) - nafnet(x, t)).abs().mean() > 1e-4


def test_nafnet_learns_in_every_parameter(nafnet):
    x, t = random_planes(2, 2, 64, 64), torch.tensor([20, 80])
    nafnet(x, t).square().mean().backward()
    for name, parameter in nafnet.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("height, width", [(37, 50), (32, 64)])
def test_nafnet_at_half_the_resolution(height, width):
    """Squares of pixels as channels: the same interface, and each pixel still has its own value."""
    torch.manual_seed(0)
    network = trained(ConditionalNAFNet(8, (1, 1), 1, (1, 1), pixel_unshuffle=2)).eval()
    x = random_planes(1, 2, height, width)
    out = network(x, torch.tensor([50]))
    assert out.shape == (1, 1, height, width)
    width -= width % 2
    assert (out[..., 0:width:2] - out[..., 1:width:2]).abs().mean() > 1e-3


def test_nafnet_refuses_unequal_halves():
    with pytest.raises(ValueError, match="same length"):
        ConditionalNAFNet(8, (1, 1), 1, (1,))


# ---- AENet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x, y", [(37, 50), (121, 128), (64, 32), (7, 5)])
@pytest.mark.parametrize("strides", [(2, 1, 2, 2, 1), (1, 1, 2, 2, 2)])
def test_aenet_takes_any_size(x, y, strides):
    network = trained(AENet(**SMALL, strides=strides))
    with torch.no_grad():
        out = network(torch.rand(2, 1, x, y, 4))
    assert out.shape == (2, 1, x, y)
    assert torch.isfinite(out).all()


def test_untrained_aenet_is_linear_interpolation():
    network = AENet(**SMALL)
    planes = random_planes(2, 1, 37, 50, 4)
    for relative_depth in (0.0, 0.125, 0.7):
        expected = planes[..., 1] * (1 - relative_depth) + planes[..., 2] * relative_depth
        assert torch.allclose(network(planes, torch.tensor(relative_depth), torch.tensor(6.5)), expected, atol=1e-6)


def test_untrained_aenet_begins_to_learn():
    """The zero head must not be a dead end."""
    network = AENet(**SMALL)
    network(random_planes(1, 1, 32, 32, 4)).square().mean().backward()
    assert network.get_parameter("output.head.weight").grad.any()  # type: ignore[union-attr]


@pytest.mark.slow
def test_aenet_scripts_to_the_same_network(aenet):
    scripted = torch.jit.script(aenet)
    planes, relative_depth, factor = random_planes(2, 1, 37, 50, 4), torch.tensor([0.25, 0.6]), torch.tensor([4.0, 8.0])
    with torch.no_grad():
        assert torch.allclose(
            scripted(planes, relative_depth, factor), aenet(planes, relative_depth, factor), atol=1e-6
        )
        assert torch.allclose(scripted(planes), aenet(planes), atol=1e-6)
        features = scripted.encode(planes)
        found = scripted.decode(features, relative_depth, factor)
    assert torch.allclose(found, aenet(planes, relative_depth, factor), atol=1e-6)


def test_defaults_are_the_middle_at_the_papers_factor(aenet):
    planes = random_planes(1, 1, 32, 32, 4)
    assert torch.equal(aenet(planes), aenet(planes, torch.tensor([0.5]), torch.tensor([8.0])))


def test_one_encoding_serves_many_relative_depths(aenet):
    """Two windows of three relative depths each, against six networks runs of one."""
    planes = random_planes(2, 1, 40, 33, 4)
    relative_depth = torch.tensor([0.2, 0.4, 0.9, 0.1, 0.5, 0.8])
    factor = torch.tensor([5.0, 5.0, 5.0, 10.0, 10.0, 10.0])
    with torch.no_grad():
        many = aenet.decode(aenet.encode(planes), relative_depth, factor)
        for i in range(6):
            window = planes[i // 3 : i // 3 + 1]
            assert torch.allclose(many[i], aenet(window, relative_depth[i], factor[i])[0], atol=1e-5)


@pytest.mark.parametrize("what", ["relative_depth", "factor"])
def test_condition_reaches_the_residual(aenet, what):
    planes = random_planes(1, 1, 32, 32, 4)
    planes[..., 2] = planes[
        ..., 1
    ]  # linear interpolation is the same at each relative depth: what differs is the network's
    one = {"relative_depth": torch.tensor(0.3), "factor": torch.tensor(4.0)}
    other = one | {what: one[what] * 2}
    assert (aenet(planes, **one) - aenet(planes, **other)).abs().mean() > 1e-4


def test_every_plane_of_the_window_counts(aenet):
    planes = random_planes(1, 1, 32, 32, 4)
    for i in range(4):
        other = planes.clone()
        other[..., i] += 0.1 * random_planes(1, 1, 32, 32, seed=9)
        weight = {1: 0.75, 2: 0.25}.get(i, 0)
        change = (
            aenet(other, torch.tensor(0.25)) - aenet(planes, torch.tensor(0.25)) - weight * (other - planes)[..., i]
        )
        assert change.abs().mean() > 1e-5


def test_aenet_learns_in_every_parameter(aenet):
    # Larger than a cell, so that the gates' averages differ from place to place.
    out = aenet.decode(aenet.encode(random_planes(1, 1, 64, 64, 4)), torch.tensor([0.2, 0.7]), torch.tensor([3.0, 3.0]))
    out.square().mean().backward()
    for name, parameter in aenet.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


# ---- SRUNet ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def srunet() -> SRUNet:
    torch.manual_seed(0)
    return SRUNet(5).eval()


@pytest.mark.parametrize("factor, x, y", [(2, 37, 50), (3, 24, 24), (8, 7, 5), (9, 1, 2), (22, 4, 4)])
def test_srunet_takes_any_size_and_whole_factor(factor, x, y):
    with torch.no_grad():
        features = SRUNet(factor).encode(torch.rand(2, 1, x, y, 4))
    assert features[0].shape == (2, factor, x, y)
    assert torch.isfinite(features[0]).all()


@pytest.mark.parametrize("factor", [1, 0, 6.5, LARGEST_FACTOR + 1, None, "8"])
def test_srunet_refuses_other_factors(factor):
    with pytest.raises(InputError, match=f"SRUNet at factor {factor}: .* from 2 to 22"):
        SRUNet(factor)


@pytest.mark.parametrize("factor", [2, 3, 5, 8, 9])
def test_srunet_computes_the_middle_of_what_the_whole_stack_gives(factor):
    torch.manual_seed(0)
    network = SRUNet(factor).eval()
    planes = random_planes(1, 1, 16, 12, 4)
    with torch.no_grad():
        stack = network.stack(planes)
        assert stack.shape == (1, 1, 16, 12, 4 * factor)
        middle = network.encode(planes)[0]
    assert torch.allclose(stack[0, 0, :, :, factor : 2 * factor].permute(2, 0, 1), middle[0], atol=1e-6)
    assert network.stack(planes[..., :3]).shape == (1, 1, 16, 12, 3 * factor)


def test_upsampling_centers_each_slice_on_its_plane(srunet):
    """Plane i of the input is centerd on plane 5 i of the output, in both branches: no shift along Z."""
    for upsample in (*srunet.up_skip, *srunet.up):
        stride = upsample.stride[0]
        x = torch.zeros(1, upsample.in_channels, 3, 4, 4)
        x[:, :, 1] = 1
        reached = (upsample(x) - upsample(torch.zeros_like(x))).abs().amax((0, 1, 3, 4))
        assert len(reached) == 3 * stride
        assert reached.nonzero().flatten().tolist() == [stride - 1, stride, stride + 1]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 5, 8, 13, 19, 22])
def test_every_slice_of_srunet_sees_the_image(factor):
    torch.manual_seed(0)
    network = SRUNet(factor)
    planes = random_planes(1, 1, 16, 16, 4).requires_grad_()
    slices = network.encode(planes)[0][0, :, 8, 8]
    for j in range(factor):
        (gradient,) = torch.autograd.grad(slices[j], planes, retain_graph=True)
        assert gradient.any(), j


def test_srunet_decodes_the_nearest_slice_of_each_window(srunet):
    planes = random_planes(2, 1, 16, 12, 4)
    relative_depth, factor = torch.tensor([0.0, 0.2, 0.38, 0.6, 0.8, 0.99]), torch.full((6,), 5.0)
    with torch.no_grad():
        features = srunet.encode(planes)
        found = srunet.decode(features, relative_depth, factor)
        assert found.shape == (6, 1, 16, 12)
        for i, (window, index) in enumerate([(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 4)]):
            assert torch.equal(found[i, 0], features[0][window, index])
        assert torch.allclose(srunet(planes, torch.tensor(0.6))[:, 0], features[0][:, 3], atol=1e-6)


@pytest.mark.slow
def test_srunet_scripts_to_the_same_network(srunet):
    scripted = torch.jit.script(srunet)
    planes, relative_depth, factor = random_planes(2, 1, 13, 18, 4), torch.tensor([0.2, 0.6]), torch.tensor([5.0, 5.0])
    with torch.no_grad():
        assert torch.allclose(
            scripted(planes, relative_depth, factor), srunet(planes, relative_depth, factor), atol=1e-6
        )
        assert torch.allclose(scripted(planes), srunet(planes), atol=1e-6)
        found = scripted.decode(scripted.encode(planes), relative_depth, factor)
    assert torch.allclose(found, srunet(planes, relative_depth, factor), atol=1e-6)


@pytest.mark.slow
def test_srunet_reads_every_slice_and_learns_in_every_parameter(srunet):
    planes = random_planes(1, 1, 16, 16, 4).requires_grad_()
    srunet.encode(planes)[0].square().mean().backward()
    assert planes.grad is not None and planes.grad.abs().amax((0, 1, 2, 3)).gt(0).all()
    for name, parameter in srunet.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    srunet.zero_grad()


@pytest.mark.slow
def test_srunet_tiles_agree_with_the_whole(srunet):
    """A tile that begins on the pooling grid, where it is farther from its edges than the network reaches."""
    reach = 40
    planes = random_planes(1, 1, 120, 8, 4)
    with torch.no_grad():
        whole = srunet.encode(planes)[0]
        tile = srunet.encode(planes[:, :, 3 * TOTAL_STRIDE :])[0]
    begin = 3 * TOTAL_STRIDE + reach
    assert torch.allclose(tile[:, :, reach:], whole[:, :, begin:], atol=1e-6)
    assert not torch.allclose(
        tile[:, :, :4], whole[:, :, 3 * TOTAL_STRIDE : 3 * TOTAL_STRIDE + 4], atol=1e-6
    )  # edges do differ


def test_srunet_fills_a_volume(srunet):
    """By the inferer that AENet has: each slice of each interval is the one of its window."""
    volume = random_planes(1, 1, 16, 12, 3)
    result = AxialInferer(5, progress=False)(volume, srunet)
    assert result.shape == (1, 1, 16, 12, 11)
    assert torch.equal(result[..., ::5], volume)
    with torch.no_grad():
        for interval, window in enumerate(([0, 0, 1, 2], [0, 1, 2, 2])):
            expected = srunet.encode(volume[..., window])[0][0, 1:].permute(1, 2, 0)
            assert torch.allclose(result[0, 0, :, :, 5 * interval + 1 : 5 * interval + 5], expected, atol=1e-5)


def test_srunet_keeps_its_factor_with_the_weights():
    state = SRUNet(5, settings={"percentiles": [0.1, 99.9]}).state_dict()
    SRUNet(5, settings={"percentiles": [0.1, 99.9]}).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"factor = 5\.0, the configuration says 8\.0"):
        SRUNet(8, settings={"percentiles": [0.1, 99.9]}).load_state_dict(state)


# ---- convolutions over folded planes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folded, reference, options",
    [
        (PlaneConv, nn.Conv3d, {"kernel_size": (3, 7, 7), "stride": (1, 2, 2), "padding": (1, 3, 3)}),
        (PlaneConv, nn.Conv3d, {"kernel_size": 3, "padding": 1, "bias": False}),
        (PlaneConv, nn.Conv3d, {"kernel_size": 1, "stride": (1, 2, 2)}),
        (PlaneConvTranspose, nn.ConvTranspose3d, {"kernel_size": (3, 4, 4), "stride": (1, 2, 2), "padding": 1}),
    ],
)
def test_folded_convolution_is_the_3d_one(folded, reference, options):
    torch.manual_seed(0)
    ours, theirs = folded(3, 5, **options), reference(3, 5, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 4, 12, 10)
    expected = theirs(x)  # (B, C, 4, H, W)
    found = ours(x.transpose(1, 2).flatten(1, 2)).unflatten(1, [4, 5]).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-6)


def test_folding_once_changes_nothing(aenet):
    folded = fold_planes(aenet)
    assert not any(isinstance(module, (PlaneConv, PlaneConvTranspose)) for module in folded.modules())
    planes, relative_depth, factor = random_planes(2, 1, 37, 50, 4), torch.tensor([0.25, 0.6]), torch.tensor([4.0, 8.0])
    with torch.no_grad():
        assert torch.allclose(folded(planes, relative_depth, factor), aenet(planes, relative_depth, factor), atol=1e-6)
    assert any(isinstance(module, PlaneConv) for module in aenet.modules())  # a copy was folded


# ---- what both share -------------------------------------------------------------------------------------------------


def test_cell_averages_do_not_depend_on_the_tile():
    image = random_planes(1, 3, 128, 64)
    whole = cell_average(image, 32)
    assert whole.shape == (1, 3, 4, 2)
    assert torch.allclose(cell_average(image[:, :, 32:96], 32), whole[:, :, 1:3])
    smooth = spread(whole, image, 32)
    assert smooth.shape == image.shape
    # Between the centers of the outermost cells a tile reads the same values as the whole.
    tile = spread(whole[:, :, 1:3], image[:, :, 32:96], 32)
    assert torch.allclose(tile[:, :, 16:48], smooth[:, :, 48:80], atol=1e-6)
    assert torch.allclose(smooth[:, :, 15:17, 15:17].mean((-2, -1)), whole[:, :, 0, 0], atol=0.1)


@pytest.mark.parametrize("cells, cell", [((3, 5), 32), ((4, 1), 8), ((2, 7), 16)])
def test_cells_are_spread_bilinearly(cells, cell):
    size = [cell * count for count in cells]
    values, like = random_planes(2, 6, *cells), torch.zeros(1, 1, *size)
    expected = nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(spread(values, like, cell), expected, atol=1e-6)
    part = spread(values, like[..., 3:, 5:], cell)  # the last cells reach over the end
    assert torch.allclose(part, expected[..., :-3, :-5], atol=1e-6)
    half = spread(values.bfloat16(), like, cell)  # the weights are exact there
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), expected, atol=0.01)


def test_a_single_cell_is_broadcast():
    image = random_planes(1, 3, 32, 32)
    assert torch.allclose(
        (image * spread(cell_average(image, 32), image, 32)), image * image.mean((-2, -1), keepdim=True)
    )


def test_last_cells_average_what_there_is():
    image = random_planes(1, 2, 40, 50)
    found = cell_average(image, 32)
    assert found.shape == (1, 2, 2, 2)
    assert torch.allclose(found[..., 1, 1], image[..., 32:, 32:].mean((-2, -1)), atol=1e-6)


def test_settings_travel_in_the_state_dict():
    network = AENet(**SMALL, settings={"percentiles": [0.1, 99.9], "delta": 0.2})
    state = network.state_dict()
    assert state["settings.percentiles"].tolist() == pytest.approx([0.1, 99.9])
    same = AENet(**SMALL, settings={"percentiles": (0.1, 99.9), "delta": 0.2})
    same.load_state_dict(state)


@pytest.mark.parametrize(
    "own, message",
    [
        ({"delta": 0.3, "train_factors": [2, 12]}, r"delta = 0\.2, the configuration says 0\.3"),
        (
            {"delta": 0.2, "train_factors": [2, 9]},
            r"train_factors = \[2\.0, 12\.0\], the configuration says \[2\.0, 9\.0\]",
        ),
        ({"delta": 0.2, "train_factors": 2}, "train_factors"),
        ({"delta": 0.2, "train_factors": [2, 12], "timesteps": 100}, "Missing.*steps"),
        ({"delta": 0.2}, "Unexpected.*train_factors"),
    ],
)
def test_other_settings_are_an_error(own, message):
    stored = TrainedSettings({"delta": 0.2, "train_factors": [2, 12]}).state_dict()
    with pytest.raises(RuntimeError, match=message):
        TrainedSettings(own).load_state_dict(stored)


def test_weights_without_settings_are_refused_by_a_lenient_load_too():
    """As MONAI Label's, which would go on with a network of random weights."""
    with pytest.raises(RuntimeError, match="another network"):
        AENet(**SMALL, settings={"delta": 0.2}).load_state_dict({"other": torch.zeros(1)}, strict=False)


@pytest.mark.parametrize("value", [0.1, 99.9, 10 / 3, [0.1, 99.9], 8, [2, 12], 50 / 255])
def test_settings_come_back_as_they_were_meant(value):
    found = trained_settings(AENet(**SMALL, settings={"value": value}))["value"]
    assert found == pytest.approx(value, rel=1e-7) and agree(found, value)
    if value in (0.1, [0.1, 99.9]):
        assert found == value  # to the last digit: 0.1 of single precision is 0.10000000149


@pytest.mark.parametrize("own", [[2, 13], [2], 2, "abc", [2, "x"], [[2, 12], [2]], float("nan"), None, {"a": 2}])
def test_settings_that_do_not_agree(own):
    assert agree([2.0, 12.0], (2, 12)) and not agree([2.0, 12.0], own)


# ---- from tensors ----------------------------------------------------------------------------------------------------

AENET_SETTINGS = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}
PRIOR_SETTINGS = {"delta": 0.2, "timesteps": 100, "percentiles": [0.1, 99.9], "prior_factor": 8}


@pytest.mark.parametrize("strides", list(product((1, 2), repeat=5)))
def test_size_of_aenet_is_read_from_its_tensors(strides):
    state = AENet((2, 4, 6, 3), strides, AENET_SETTINGS).state_dict()
    found = architecture_of(state, "a.pt")
    assert (found.network, found.sizes) == ("aenet", {"widths": [2, 4, 6, 3], "strides": list(strides)})
    assert found.settings == AENET_SETTINGS
    found.build().load_state_dict(state)


@pytest.mark.parametrize(
    "sizes",
    [
        (4, [1], 1, [1], 1),
        (4, [1, 2, 3], 4, [3, 1, 2], 2),
        (6, [2, 1, 1, 1], 0, [1, 1, 1, 1], 2),
        (8, [0, 1], 1, [1, 0], 4),
        (4, [], 1, [], 1),
    ],
)
def test_size_of_the_prior_is_read_from_its_tensors(sizes):
    make_prior: Any = ConditionalNAFNet
    state = make_prior(*sizes, PRIOR_SETTINGS).state_dict()
    found = architecture_of(state, "a.pt")
    assert found.network == "nafnet" and tuple(found.sizes.values()) == sizes
    found.build().load_state_dict(state)


def test_factor_of_srunet_is_read_from_its_settings():
    state = SRUNet(7, {"percentiles": [1, 99]}).state_dict()
    found = architecture_of(state, "a.pt")
    assert (found.network, found.sizes, found.settings) == ("srunet", {}, {"percentiles": [1, 99], "factor": 7})
    assert architecture_of(state, "a.pt").build().factor == 7
    state["settings.factor"] = torch.tensor(6.5)
    with pytest.raises(InputError, match="^a.pt: weights of another network: settings.factor = 6.5 cannot be"):
        architecture_of(state, "a.pt")


# ---- by name ---------------------------------------------------------------------------------------------------------


def named(network: str, factor: float | None = None, train_factors: tuple[int, int] = (2, 12)) -> AENet | SRUNet:
    return make_network(network, [0.1, 99.9], train_factors, [2, 2, 2, 2], [2, 1, 2, 2, 1], factor)


def test_networks_by_name_keep_what_they_were_trained_for():
    aenet, srunet = named("aenet"), named("srunet", 6.0)
    assert isinstance(aenet, AENet) and isinstance(srunet, SRUNet)
    assert set(dict(aenet.settings.named_buffers())) == {"percentiles", "train_factors"}
    assert set(dict(srunet.settings.named_buffers())) == {"percentiles", "factor"}
    named("srunet", 6, train_factors=(2, 5)).load_state_dict(srunet.state_dict())  # not a number of SRUNet
    for other, words in (
        (named("srunet", 4), "factor = 6.0, the configuration says 4.0"),
        (aenet, "no settings.train_factors"),
    ):
        with pytest.raises(RuntimeError, match=words):
            other.load_state_dict(srunet.state_dict())


@pytest.mark.parametrize(
    "network, factor, words",
    [
        ("unet", 8, "--architecture unet: there is none of that name; choose aenet or srunet"),
        ("srunet", None, "--factor is missing: .* whole number from 2 to 22"),
        ("srunet", 6.5, "SRUNet at factor 6.5: .* --architecture aenet"),
        ("srunet", "eight", "SRUNet at factor eight: .* whole --factor"),
        ("aenet", 8, "--factor 8: .* --train_factors"),
    ],
)
def test_networks_by_name_refuse_in_one_line(network, factor, words):
    with pytest.raises(InputError, match=words):
        named(network, factor)
    if network != "aenet":
        with pytest.raises(InputError, match=words):
            check_network(network, factor)


def test_aenet_is_used_at_any_factor():
    check_network("aenet", 6.5)
