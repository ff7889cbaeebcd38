"""Subjects that are pictures: 1,797 handwritten digits from scikit-learn, 8 by 8 pixels, with random attributes.

    picture_17    0013 0231 …      16 patches of 2 by 2 pixels, row by row; each pixel one of four levels of grey
    attribute_2   attribute_2_40   one token, uniform, independent of the digit

A patch is a token: pixels are quantized, and nothing tells a model which of the 256 patches are similar. A view of a
picture (shifted, noisy or turned) has other tokens and the same subject. Training shows each picture itself and views
of two of these three kinds; the third kind is held out for questions.
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
from memlayers.facts.biographies import token_ids
from memlayers.facts.drawing import draw_facts
from memlayers.facts.world import Vocabulary, World

DIGEST = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"  # sha256 of the pixels
WHITE, LEVELS, PATCH = 16, 4, 2
NOISE = 1.0  # standard deviation; pixels are from 0 to 16
TURNS = (10.0, 15.0)  # degrees, to either side
ASKED = 4  # views of each picture and kind for questions, none of which training shows
Transformation = Callable[[Tensor, torch.Generator], Tensor]


def build_pictures(config: PicturesConfig) -> World:
    """Known pictures are drawn at random; unknown subjects are those of the rest whose patches all occur in known ones.

    No two pictures have the same patches. Views of two pictures may have: the notes say how often.
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
    """Notes on how many views are equal after quantizing, from the patches of training views (n, v, p) and held-out
    views (n, h, p) of n pictures.
    """
    owner = torch.arange(len(training)).repeat_interleave(training.shape[1])
    _, spelling = training.flatten(0, 1).unique(dim=0, return_inverse=True)
    owners = torch.stack([spelling, owner], dim=1).unique(dim=0)[:, 0].bincount()
    seen = (held_out[:, :, None] == training[:, None]).all(dim=-1).any(dim=-1).double().mean()
    return (
        f"{int((owners > 1).sum())} of {len(owners)} different training views are of several pictures, in patches",
        f"{float(seen):.1%} of the views held out are in patches as training shows the same picture",
    )


def load_pixels() -> Tensor:
    """All pictures (1797, 8, 8), from 0 to WHITE; raises ValueError if scikit-learn is missing or has other ones."""
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
    """Pictures (..., 8, 8) -> codes of their patches (..., 16), row by row, each in 0 .. LEVELS ** 4 - 1."""
    levels = (pixels * ((LEVELS - 1) / WHITE)).round().long()
    patches = rearrange(levels, "... (i a) (j b) -> ... (i j) (a b)", a=PATCH, b=PATCH)
    return (patches * LEVELS ** torch.arange(PATCH**2 - 1, -1, -1)).sum(dim=-1)


def views_of(pixels: Tensor, config: PicturesConfig) -> dict[str, Tensor]:
    """Views (n, v, 8, 8) of pictures, by phrasing. Each view is of one kind, and drawn anew.

    training: the pictures themselves, then views of the kinds that are not held out; a larger world.views appends some.
    as_is: the pictures themselves. Each kind: ASKED views that training does not show. held_out: those of
    world.held_out.
    """
    generator = torch.Generator().manual_seed(config.seed)
    views = {"as_is": pixels[:, None]}
    for name, change in KINDS.items():
        views[name] = torch.stack([change(pixels, generator) for _ in range(ASKED)], dim=1)
    views["held_out"] = views[config.held_out]
    first_change, second_change = (change for name, change in KINDS.items() if name != config.held_out)
    shown = [pixels]
    while len(shown) < config.views:
        coin = torch.rand(len(pixels), 1, 1, generator=generator) < 0.5
        shown.append(torch.where(coin, first_change(pixels, generator), second_change(pixels, generator)))
    return views | ({"training": torch.stack(shown, dim=1)} if config.views > 1 else {})


def patch_texts() -> list[str]:
    """The text of each patch code, the levels of its four pixels: 0000 … 3333."""
    return ["".join(map(str, levels)) for levels in product(range(LEVELS), repeat=PATCH**2)]


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each of the pictures (n, 8, 8) by one pixel in one of eight directions, padded with black."""
    step = torch.tensor([step for step in product((0, 1, 2), repeat=2) if step != (1, 1)])
    row, column = step[torch.randint(len(step), (len(pixels),), generator=generator)].T
    within = torch.arange(pixels.shape[-1])
    picture = torch.arange(len(pixels))[:, None, None]
    return pad(pixels, (1, 1, 1, 1))[picture, (row[:, None] + within)[:, :, None], (column[:, None] + within)[:, None]]


def noisy(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise with standard deviation NOISE to every pixel."""
    return (pixels + NOISE * torch.randn(pixels.shape, generator=generator)).clamp(0, WHITE)


def turned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each picture by 10 to 15 degrees to the left or to the right."""
    size, side = torch.rand(2, len(pixels), generator=generator)
    return rotate(pixels, (TURNS[0] + (TURNS[1] - TURNS[0]) * size) * torch.where(side < 0.5, -1, 1))


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate pictures (n, 8, 8) anticlockwise about their centres by angles (n,); bilinear, black outside."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = affine_grid(matrix, [len(pixels), 1, *pixels.shape[1:]], align_corners=True)
    return grid_sample(pixels[:, None], grid, align_corners=True)[:, 0]


KINDS: dict[str, Transformation] = {"shifted": shifted, "noisy": noisy, "turned": turned}
