"""The length of the plateau at the start of training, on which a model answers by frequency, whatever the subject.

Zucchet et al. 2025 (arXiv 2503.21676) found its length to grow as 0.43 N ** 0.81 with N individuals, for dense models.
"""

ABOVE = 0.05  # recall above the floor of a model that knows no subject, at which the plateau ends


def left_plateau(curve: list[tuple[float, float]], floor: float) -> float | None:
    """Exposures at which recall passes floor + 0.05, interpolated linearly between probes (exposures, recall), from (0,
    0).

    None for a run that stays below.
    """
    goal, before = floor + ABOVE, (0.0, 0.0)
    for exposures, recall in curve:
        if recall >= goal:
            return before[0] + (exposures - before[0]) * (goal - before[1]) / (recall - before[1])
        before = exposures, recall
    return None
