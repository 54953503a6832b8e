"""Pictures of faces on the page: sample pairs with their distances, the dataset analysis."""

import base64
import io

from PIL import Image

from crfr.errors import InputError
from crfr.report.analysis import AGAIN, Analysis
from crfr.report.drawing import stem
from crfr.report.formats import escape
from crfr.report.models import Report
from crfr.report.resolutions import selected
from crfr.report.sides import TILE, open_image, tiles
from crfr.report.tables import MISSING, Table, distance

PAIRS = 6  # most sample pairs on a page
SIZES = {"bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}


def data_uri(image: Image.Image) -> str:
    """An image as JPEG: a tenth of the PNG, and no difference that the eye sees."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _img(image: Image.Image, words: str, kind: str = "") -> str:
    return f'<img class="{kind}" src="{data_uri(image)}" alt="{escape(words)}">'


def _verdict(report: Report, benchmark: str, pair: int, same: bool, r: int) -> list[tuple]:
    """(model, distance, threshold, nearer, right) in CR_B at r px, of the models that have them."""
    found = []
    for model in (each.one for each in report.models):  # of several seeds that one
        pairs = model.pairs.get(benchmark)
        row = model.cells.get((benchmark, "CR_B", r))
        if (
            pairs is None
            or row is None
            or row.threshold is None
            or r not in pairs.distances["CR_B"]
        ):
            continue
        if pair >= len(pairs.same) or bool(pairs.same[pair]) != same:
            raise InputError(
                f"sample pair {pair} of {benchmark!r} is not that of the distances: delete the "
                "folder samples of its sweep and sweep that model again"
            )
        value = float(pairs.distances["CR_B"][r][pair])
        near = value < row.threshold
        found.append((model.label, value, row.threshold, near, near == same))
    return found


def _shown(report: Report, benchmark: str) -> list[int]:
    return selected(sorted(report.samples[benchmark].strips))[::-1]


def sample_table(report: Report, benchmark: str) -> Table | None:
    """Every number of the sample pairs; None without samples or distances."""
    samples = report.samples.get(benchmark)
    body = []
    for pair, same in samples.pairs[:PAIRS] if samples else ():
        for r in _shown(report, benchmark):
            for label, value, threshold, near, right in _verdict(report, benchmark, pair, same, r):
                truth = "one person" if same else "two people"
                said = "one person" if near else "two people"
                cells = [label, str(pair), truth, f"{r} px", distance(value), distance(threshold)]
                cells += [said, "right" if right else "wrong"]
                body.append(tuple((cell,) for cell in cells))
    heads = ("model", "pair", "truth", "second image", "distance", "threshold", "said", "verdict")
    title = f"Sample pairs of {benchmark}"
    return Table(stem("samples", benchmark), title, "", heads, tuple(body)) if body else None


def sample_pairs(report: Report, benchmark: str) -> str:
    """Each sample pair: the first image at its highest resolution, the second at each.

    Below each the distance of every model, and on which side of its threshold it falls.
    """
    samples = report.samples.get(benchmark)
    if samples is None:
        return ""
    sizes, cards = _shown(report, benchmark), []
    for number, (pair, same) in enumerate(samples.pairs[:PAIRS]):
        first, _ = tiles(samples, sizes[0], number)
        words = f"first image of pair {pair} at {sizes[0]} px"
        heads, lines = "", {}
        for r in sizes:
            _, second = tiles(samples, r, number)
            image = _img(second, f"second image of pair {pair} at {r} px")
            heads += f'<th scope="col">{image}<span>{r}&nbsp;px</span></th>'
            for label, value, threshold, near, right in _verdict(report, benchmark, pair, same, r):
                said = f"{'one' if near else 'two'} {'✓' if right else '✗'}"
                title = f"threshold {threshold:.3f}"
                lines.setdefault(label, {})[r] = (
                    f'<td class="{"right" if right else "wrong"}" title="{title}">'
                    f"{distance(value)}<small>{said}</small></td>"
                )
        body = "".join(
            f'<tr><th scope="row"><span>{escape(label)}</span></th>'
            + "".join(cells.get(r, f"<td>{MISSING}</td>") for r in sizes)
            + "</tr>"
            for label, cells in lines.items()
        )
        truth = "One person" if same else "Two people"
        cards.append(
            f'<div class="scroll pair" tabindex="0"><table><thead><tr><th scope="col">'
            f"{_img(first, words)}<span>{truth}</span></th>{heads}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
    return (
        f'<h3>Sample pairs</h3><div class="pairs">{"".join(cards)}</div>'
        f'<p class="note">On the left the first image, at {sizes[0]} px; then the second one at '
        "falling resolutions (CR_B). Below: the cosine distance of both images for each model, "
        "and whether it is under the model’s threshold at that resolution (taken for one person) "
        "or not (two); ✓ right, ✗ wrong.</p>"
    )


def _file(analysis: Analysis, benchmark: str, name: str) -> Image.Image:
    path = analysis.folder(benchmark) / name
    if not path.is_file():
        raise InputError(f"{path} is missing: {AGAIN}")
    return open_image(path)


def reduction(analysis: Analysis) -> str:
    """One image whole, down and up again (fig. 3)."""
    benchmark = next(iter(analysis.images))
    r = min(analysis.resolutions, key=lambda r: abs(r - 14))  # the paper shows 14 px
    whole = _file(analysis, benchmark, "sample.png")
    # the small image is not on file; this is it but for rounding
    method = SIZES.get(analysis.degradation, Image.Resampling.BICUBIC)
    small = whole.resize((r, r), method)
    again = _file(analysis, benchmark, f"sample-{r}.png")
    small = small.resize((8 * r, 8 * r), Image.Resampling.NEAREST)
    side = f"{100 * r / TILE:.3g}%"
    return (
        '<h3>How resolution is reduced</h3><figure><div class="reduction">'
        f"<div>{_img(whole, 'the whole image')}<span>whole, {TILE}&nbsp;px</span></div>"
        f'<div><i style="width:{side}">{_img(small, f"reduced to {r} px", "pixels")}</i>'
        f"<span>reduced to {r}&nbsp;px</span></div>"
        f"<div>{_img(again, f'enlarged from {r} px')}<span>enlarged to {TILE}&nbsp;px again</span>"
        f"</div></div><figcaption>An image of {escape(benchmark)} (the paper’s fig. 3, eq. 1)."
        "</figcaption></figure>"
    )


def differences(analysis: Analysis) -> str:
    """Mean images and mean absolute differences per resolution (fig. 4)."""
    first = next(iter(analysis.images))
    names = list(analysis.images)
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    means = [_img(_file(analysis, n, "mean.png"), f"mean of {n}") for n in names]
    cells = "".join(f"<td>{mean}</td>" for mean in means)
    sample = _img(_file(analysis, first, "sample.png"), "a sample")
    rows = f'<tr><th scope="row"><span>mean image</span></th><td>{sample}</td>{cells}</tr>'
    for r in analysis.resolutions:
        sample = _img(_file(analysis, first, f"sample-{r}.png"), f"the sample at {r} px")
        cells = "".join(
            f"<td>{_img(_file(analysis, n, f'difference-{r}.png'), f'difference of {n} at {r} px')}"
            f"<small>{analysis.differences[n][r]:.2f}</small></td>"
            for n in names
        )
        rows += f'<tr><th scope="row"><span>{r}&nbsp;px</span></th><td>{sample}</td>{cells}</tr>'
    return (
        '<h3>What is lost</h3><div class="scroll faces" tabindex="0"><table><thead><tr><th></th>'
        f"<th>a sample</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">First row: a sample and the mean image of each benchmark (eq. 4). Below: '
        "the sample at that resolution, and the mean absolute difference between reduced and whole "
        "images (eq. 5) with its mean in grey levels of 255 (the paper’s fig. 4).</p>"
    )


def analysis_table(analysis: Analysis) -> Table:
    body = tuple(
        (
            (name,),
            (f"{analysis.images[name]:,}",),
            *((f"{d[r]:.3f}",) for r in analysis.resolutions),
        )
        for name, d in analysis.differences.items()
    )
    heads = ("benchmark", "images", *(f"{r} px" for r in analysis.resolutions))
    note = "mean over the images’ pixels, grey levels of 255"
    return Table("dataset", "Mean absolute difference from the whole image", note, heads, body)
