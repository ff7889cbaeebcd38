"""Names in figures: of rows of a table, as short as tells them apart, and of read-outs."""

import pandas

from memlayers.studies.table import naming


def labels_of(rows: pandas.DataFrame, axes: list[str], alone: str = "") -> list[str]:
    """Short names of rows: the arm, and of each axis a value that most rows do not have; with all values that are there
    where that is not enough to tell them apart. `alone`: the arm of all rows, if there is but one.
    """
    if "arm" in axes:  # without axes of which some arms have one value, and others none
        shared = [axis for axis in axes if rows[axis].nunique() == 2 and "-" in set(rows[axis])]
        given = [axis for axis in shared if rows.groupby("arm")[axis].nunique().max() == 1]
        axes = ["arm", *(axis for axis in axes if axis not in ("arm", *given))]
    there = {axis: rows.loc[rows[axis] != "-", axis] for axis in axes}
    most = {axis: values.mode().iloc[0] for axis, values in there.items() if len(values)}
    usual = {axis: value for axis, value in most.items() if 2 * (there[axis] == value).sum() > len(there[axis])}
    short = {axis: ending(axis, axes) for axis in axes}
    full = [naming(row, axes) for _, row in rows.iterrows()]
    for hidden in ({axis: ("-", usual.get(axis)) for axis in axes}, dict.fromkeys(axes, ("-",))):
        labels = []
        for _, row in rows.iterrows():
            own = [axis for axis in axes if axis == "arm" or row[axis] not in hidden[axis]]
            parts = [row[axis] if axis in ("arm", "study") else f"{short[axis]} = {row[axis]}" for axis in own]
            labels.append(", ".join([alone, *parts] if alone and "arm" not in own else parts))
        if len(set(zip(full, labels, strict=True))) == len(set(labels)) and "" not in labels:
            return labels
    return full


def ending(axis: str, axes: list[str]) -> str:
    """The last words of a key that no other has: values.lr beside optim.lr, else lr."""
    words = axis.split(".")
    ends = (".".join(words[-count:]) for count in range(1, len(words) + 1))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in axes) == 1), axis)


def spelt(name: str) -> str:
    """The title of a read-out or an axis."""
    return name.replace("_", " ").replace("flops", "FLOPs").replace("auroc", "AUROC")
