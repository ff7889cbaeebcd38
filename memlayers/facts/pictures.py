"""Subjects that are pictures: 1,797 handwritten digits out of scikit-learn, 8 by 8 pixels, with attributes by chance.

    picture_17    0013 0231 …      16 patches of 2 by 2 pixels, row by row; each pixel one of four levels of grey
    attribute_2   attribute_2_40   one token, uniform: what the digit is says nothing about it

A patch is a token: pixels are quantized, and a model is not told which of the 256 patches are alike. A picture that is
shifted, noisy or turned is other tokens, of the same subject. Training shows each as it is and in views of two of these
three kinds; the third is only asked in.
"""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from itertools import product

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from memlayers.config import PicturesConfig
from memlayers.facts.biographies import draw_facts, token_ids
from memlayers.facts.world import Vocabulary, World

DIGEST = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"  # sha256 of the pixels
WHITE, LEVELS, PATCH = 16, 4, 2
NOISE = 1.0  # standard deviation, of 16
TURNS = (10.0, 15.0)  # degrees, to either side
ASKED = 4  # views of a kind that training never shows, of each picture
Transformation = Callable[[Tensor, torch.Generator], Tensor]


def build_pictures(config: PicturesConfig) -> World:
    """Known pictures drawn at random; unknown subjects are the others, as far as known ones have all of their patches.

    No two pictures are the same in patches. A view may be that of another picture: the notes say how often.
    """
    generator = torch.Generator().manual_seed(config.seed)
    pixels = load_pixels()
    codes = in_patches(pixels)
    order = torch.randperm(len(pixels), generator=generator)
    known, rest = order[: config.num_pictures], order[config.num_pictures :]
    fits = torch.isin(codes[rest], codes[known]).all(dim=1)
    order = torch.cat([known, rest[fits]])
    facts = draw_facts(len(known), config.cardinalities, generator)
    views = {name: in_patches(table) for name, table in views_of(pixels[order], config).items()}

    vocabulary = Vocabulary()
    patches = torch.tensor([vocabulary[text] for text in patch_texts()])
    relations = tuple(f"attribute_{index + 1}" for index in range(len(config.cardinalities)))
    objects = [
        token_ids(name, size, vocabulary, False) for name, size in zip(relations, config.cardinalities, strict=True)
    ]
    return World(
        name=config.name,
        vocabulary=vocabulary.tokens(),
        subjects=patches[codes[known]],
        relations=relations,
        objects=tuple(column[:, None] for column in objects),
        facts=facts,
        weights=torch.ones(facts.shape),
        unknown=patches[codes[rest[fits]]],
        views={name: patches[table] for name, table in views.items()},
        written_subjects=tuple(f"picture_{index}" for index in order.tolist()),
        notes=(
            f"{int((~fits).sum())} pictures are not asked about as unknown: a patch that no known one has",
            *notes_of(views.get("training", codes[order][:, None]), views["held_out"]),
        ),
    )


def notes_of(training: Tensor, held_out: Tensor) -> tuple[str, str]:
    """What quantizing makes the same, in patches (n, v, p) and (n, h, p) of the views of n pictures."""
    owner = torch.arange(len(training)).repeat_interleave(training.shape[1])
    _, spelling = training.flatten(0, 1).unique(dim=0, return_inverse=True)
    owners = torch.stack([spelling, owner], dim=1).unique(dim=0)[:, 0].bincount()
    seen = (held_out[:, :, None] == training[:, None]).all(dim=-1).any(dim=-1).double().mean()
    return (
        f"{int((owners > 1).sum())} of {len(owners)} different training views are of several pictures, in patches",
        f"{float(seen):.1%} of the views held out are in patches as training shows the same picture",
    )


def load_pixels() -> Tensor:
    """All pictures (1797, 8, 8), from 0 to WHITE; raises ValueError where scikit-learn is missing or has others."""
    install = 'accepted: pip install -e ".[pictures]" -c constraints.txt'
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError(f"world=pictures needs the package scikit-learn; {install}") from error
    pixels = torch.from_numpy(load_digits().images).to(torch.uint8)
    if hashlib.sha256(pixels.numpy().tobytes()).hexdigest() != DIGEST:
        raise ValueError(f"world=pictures: scikit-learn {version('scikit-learn')} holds other pictures; {install}")
    return pixels.float()


def in_patches(pixels: Tensor) -> Tensor:
    """Numbers of the patches (..., 16) of pictures (..., 8, 8), below LEVELS ** 4, row by row."""
    levels = (pixels * ((LEVELS - 1) / WHITE)).round().long()
    patches = rearrange(levels, "... (i a) (j b) -> ... (i j) (a b)", a=PATCH, b=PATCH)
    return (patches * LEVELS ** torch.arange(PATCH**2 - 1, -1, -1)).sum(dim=-1)


def views_of(pixels: Tensor, config: PicturesConfig) -> dict[str, Tensor]:
    """Views (n, v, 8, 8) of pictures, by the phrasing that asks in them. A view is of one kind, each time anew.

    training: the pictures as they are, then views of the kinds that are not held out; with more views come more, and
    none changes. as_is and each kind: ASKED views that training does not have. held_out: those of world.held_out.
    """
    generator = torch.Generator().manual_seed(config.seed)
    found = {"as_is": pixels[:, None]}
    for name, change in KINDS.items():
        found[name] = torch.stack([change(pixels, generator) for _ in range(ASKED)], dim=1)
    found["held_out"] = found[config.held_out]
    one, other = (change for name, change in KINDS.items() if name != config.held_out)
    shown = [pixels]
    while len(shown) < config.views:
        coin = torch.rand(len(pixels), 1, 1, generator=generator) < 0.5
        shown.append(torch.where(coin, one(pixels, generator), other(pixels, generator)))
    return found | ({"training": torch.stack(shown, dim=1)} if config.views > 1 else {})


def patch_texts() -> list[str]:
    """Of each number, the levels of the four pixels: 0000 … 3333."""
    return ["".join(map(str, levels)) for levels in product(range(LEVELS), repeat=PATCH**2)]


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (n, 8, 8), each moved by one pixel in one of eight directions; what comes in is black."""
    step = torch.tensor([one for one in product((0, 1, 2), repeat=2) if one != (1, 1)])
    row, column = step[torch.randint(len(step), (len(pixels),), generator=generator)].T
    within = torch.arange(pixels.shape[-1])
    picture = torch.arange(len(pixels))[:, None, None]
    return pad(pixels, (1, 1, 1, 1))[picture, (row[:, None] + within)[:, :, None], (column[:, None] + within)[:, None]]


def noisy(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures with Gaussian noise of NOISE on every pixel."""
    return (pixels + NOISE * torch.randn(pixels.shape, generator=generator)).clamp(0, WHITE)


def turned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures, each turned by 10 to 15 degrees to the left or to the right."""
    size, side = torch.rand(2, len(pixels), generator=generator)
    return rotate(pixels, (TURNS[0] + (TURNS[1] - TURNS[0]) * size) * torch.where(side < 0.5, -1, 1))


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Pictures (n, 8, 8) about their centres, each by its angle (n,), anticlockwise; bilinear, black around."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = affine_grid(matrix, [len(pixels), 1, *pixels.shape[1:]], align_corners=True)
    return grid_sample(pixels[:, None], grid, align_corners=True)[:, 0]


KINDS: dict[str, Transformation] = {"shifted": shifted, "noisy": noisy, "turned": turned}
