"""One can look into every network, sees what it really does, and leaves it as it was."""
import pytest
import torch
from torch import nn

from mnist_fastai.data.core import mnist_dls
from mnist_fastai.interpret import batch_of, class_activation_map, feature_maps, last_hidden, plot_hidden
from mnist_fastai.models import archs


@pytest.fixture(scope='module')
def batch(digits): return batch_of(mnist_dls(digits).valid, list(range(0, 280, 10)))


@pytest.mark.parametrize('arch', archs)
def test_one_can_look_into_every_network_and_leaves_it_as_it_was(arch, batch):
    torch.manual_seed(1)
    model, (xb, yb) = archs[arch](), batch
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps, cam, hidden = feature_maps(model, xb), class_activation_map(model, xb), last_hidden(model, xb)
    assert all(o.shape[0] == len(xb) and o.dim() == 4 for _, o in maps) and bool(maps) == (arch != 'mlp')
    if arch == 'mlp': assert cam is None
    else: assert cam.shape == (len(xb), 28, 28) and 0 <= cam.min() and cam.max() <= 1
    last = [o for o in model.modules() if isinstance(o, (nn.Conv2d, nn.Linear))][-1]
    if isinstance(last, nn.Linear): assert last(hidden).allclose(model(xb), atol=1e-5)
    assert plot_hidden(model, xb, yb).axes[0].collections[0].get_offsets().shape == (len(xb), 2)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(o._forward_hooks for o in model.modules())
    frozen = class_activation_map(model.requires_grad_(False), xb)
    assert frozen is None if cam is None else frozen.equal(cam)


def test_for_a_network_that_ends_in_an_average_the_map_is_the_classic_one():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    x = torch.rand(4, 1, 28, 28)
    maps, digits = model[:2](x), torch.tensor([1, 2, 3, 4])
    classic = torch.einsum('nchw,nc->nhw', maps, model[4].weight[digits]).relu()
    classic = nn.functional.interpolate(classic[:, None], (28, 28), mode='bilinear')[:, 0]
    classic = classic/classic.amax((1, 2), keepdim=True).clamp(1e-9)
    assert class_activation_map(model, x, digits).allclose(classic, atol=1e-5)
