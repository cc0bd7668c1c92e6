"""The tables of README and docs, as functions from measured numbers to Markdown. See :mod:`tests.results`."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import sqrt

from scipy.special import stdtrit

from src.evaluation.statistics import mean_and_deviation
from src.reporting.analysis.certified import CertifiedSet, load_certified, published_certified
from src.reporting.analysis.labels import column_label, half_width, percent
from src.reporting.analysis.rates import Rate
from src.reporting.document.published import published
from tests.results import REPO, Measured

Row = dict[str, str]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first ``words`` columns are words and whose others are numbers."""
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in [head, rule, *rows])


def rate(row: Row, strong: bool = False) -> str:
    """An accuracy in percent ± half the width of its 95 % Wilson interval; whole numbers of 100 images or fewer."""
    n = int(row["n"])
    found = Rate.quoted(int(row["correct"]) / n, n)
    text = percent(found.fraction, 0 if n <= 100 else 1)
    width = half_width(found.low, found.high) if n > 100 else f"±{50 * (found.high - found.low):.0f}"
    return f"**{text}** {width}" if strong else f"{text} {width}"


def share(row: Row) -> str:
    """An accuracy in percent."""
    return percent(int(row["correct"]) / int(row["n"]))


#: The purifiers of the front page, by defense and noise.
FRONT = {
    ("none", ""): "none",
    ("kmeans", ""): "K-means, k = 20",
    ("binarize", ""): "thresholding at 0.5",
    ("vqvae", "0.5"): "the report's VQ-VAE, noise 0.5",
    ("vqvae_robust", ""): "`vqvae_robust`",
    ("vqvae_certified", ""): "`vqvae_certified`",
}


def purifiers(measured: Measured) -> str:
    """The front page's: clean, gray-box, adaptive and proved accuracy."""
    rows = []
    for (defense, noise), label in FRONT.items():
        found = _judged(measured, defense, noise)
        strong = defense.startswith("vqvae_")
        shown = [rate(found[name], strong) if name in found else "–" for name in ("gray_box", "adaptive", "proved")]
        rows.append((label, rate(found["clean"]), *shown))
    return markdown(("purifier", "clean", "gray-box", "adaptive", "proved"), rows)


def _judged(measured: Measured, defense: str, noise: str) -> dict[str, Row]:
    """The worst of ten attacks on a purifier at the largest eps: clean, by threat, and what is proved of it."""
    where = {"defense": defense, "noise": noise}
    eps = max(float(row["eps"]) for row in measured.rows)
    asked = {
        "clean": {"attack": "worst", "eps": 0.0, "threat": "gray_box"},
        "gray_box": {"attack": "worst", "eps": eps, "threat": "gray_box"},
        "adaptive": {"attack": "worst", "eps": eps, "threat": "adaptive"},
        "proved": {"attack": "certified", "eps": eps},
    }
    rows = {name: measured.where(**each, **where) for name, each in asked.items()}
    # Of a row of more images and one of fewer the first counts.
    return {name: max(some, key=lambda row: int(row["n"])) for name, some in rows.items() if some}


def board(measured: Measured) -> str:
    """All purifiers, ranked by what an attacker leaves who knows them."""
    columns = list(dict.fromkeys((row["defense"], row["noise"]) for row in measured.where(attack="worst")))
    judged = {column: _judged(measured, *column) for column in columns}
    ranked = sorted(columns, key=lambda column: -_left_by_the_stronger(judged[column]))
    rows = []
    for column in ranked:
        found = judged[column]
        proved = rate(found["proved"]) if "proved" in found else "–"
        shown = [rate(found[name]) if name in found else "not measured" for name in ("clean", "gray_box", "adaptive")]
        label = " ".join(filter(None, column))
        rows.append((label, *shown, proved))
    return markdown(("purifier", "clean", "gray-box", "adaptive", "proved"), rows)


def _left_by_the_stronger(found: dict[str, Row]) -> float:
    """The share left by the stronger of two attackers: who knows the purifier could also act as if he did not. Below
    all others where the adaptive one was not tried."""
    if "adaptive" not in found:
        return -1.0
    return min(int(found[threat]["correct"]) / int(found[threat]["n"]) for threat in ("gray_box", "adaptive"))


def report_protocol(measured: Measured) -> str:
    """The report's 75 numbers under its own protocol: ours / the report's."""
    columns = list(dict.fromkeys(each.column for each in published()))
    rows: dict[tuple[str, float], list[str]] = {}
    for each in published():
        defense, noise = each.column
        where = {"defense": defense, "noise": "" if noise is None else noise, "protocol": "report"}
        ours = measured.row(attack=each.attack, eps=each.eps, **where)
        rows.setdefault((each.attack, each.eps), []).append(f"{share(ours)} / {each.percent:.1f}")
    labels = {"fgsm": "FGSM", "ifgsm": "I-FGSM", "mifgsm": "MI-FGSM"}
    lines = [(labels[attack], f"{eps:g}", *cells) for (attack, eps), cells in rows.items()]
    return markdown(("attack", "eps", *(column_label(*column) for column in columns)), lines)


def inference_noise(measured: Measured) -> str:
    """The report's networks at eps 0.3, asked with the noise of their training, as in the report, and without."""
    rows = []
    for noise in (0.0, 0.25, 0.5, 0.75):
        asked = (("fgsm", "report"), ("fgsm", "default"), ("ifgsm", "report"), ("ifgsm", "default"))
        where = {"eps": 0.3, "defense": "vqvae", "noise": noise}
        found = [measured.row(attack=attack, protocol=protocol, **where) for attack, protocol in asked]
        rows.append((f"{noise:g}", *map(rate, found)))
    head = (
        "noise",
        "FGSM, noise at inference",
        "FGSM, no noise",
        '"I-FGSM" of one gradient, noise',
        "I-FGSM, no noise",
    )
    return markdown(head, rows, words=0)


def grid(demo: Measured) -> str:
    """The demo's: every attack and eps, every defense. Bold is the best of its row, and whatever is as high."""
    columns = list(dict.fromkeys((row["defense"], row["noise"]) for row in demo.rows))
    scenes = [("no attack", "fgsm", 0.0)]
    for label, attack in (("FGSM", "fgsm"), ("I-FGSM", "ifgsm"), ("MI-FGSM", "mifgsm")):
        scenes += [(f"{label} {eps:g}", attack, eps) for eps in (0.1, 0.2, 0.3)]
    rows = []
    for label, attack, eps in scenes:
        found = [demo.row(attack=attack, eps=eps, defense=defense, noise=noise) for defense, noise in columns]
        best = max(map(share, found), key=float)
        rows.append((label, *(rate(row, strong=share(row) == best) for row in found)))
    return markdown(("attack, eps", *(" ".join(filter(None, column)) for column in columns)), rows)


def by_library(attacks: Measured) -> str:
    """What attacks of four libraries leave of a classifier whose logits are multiplied by k."""
    names = list(dict.fromkeys(row["classifier"] for row in attacks.rows))
    rows = []
    for attack, library, eps in dict.fromkeys((row["attack"], row["library"], row["eps"]) for row in attacks.rows):
        found = {row["classifier"]: row for row in attacks.where(attack=attack, library=library, eps=eps)}
        shown = ["not run" if name not in found else _left(found[name]) for name in names]
        rows.append((attack, library, eps, *shown))
    return markdown(("attack", "library", "eps", *names), rows, words=2)


def _left(row: Row) -> str:
    return percent(int(row["correct"]) / int(row["images"]))


def precision(measured: Measured) -> str:
    """Gradients in float32 and in bfloat16."""
    asked = [(defense, bits) for defense in ("none", "binarize") for bits in ("float32", "bfloat16")]
    rows = []
    for label, attack in (("FGSM", "fgsm"), ("I-FGSM", "ifgsm"), ("MI-FGSM", "mifgsm")):
        for eps in (0.1, 0.2, 0.3):
            named = [(defense, f"{attack} (attack_precision={bits})") for defense, bits in asked]
            found = [measured.row(attack=name, eps=eps, defense=defense) for defense, name in named]
            rows.append((label, f"{eps:g}", *map(share, found)))
    return markdown(("attack", "eps", *(f"{defense}, {bits}" for defense, bits in asked)), rows)


def verdicts(measured: Measured) -> str:
    """The report's protocol under four verdicts."""
    names = ("single", "worst of 10", "majority of 10", "frozen")
    lowest = min(measured.rows, key=lambda row: int(row["correct"]))
    rows = []
    for eps in (0.0, 0.2, 0.3):
        defenses = ["vqvae", *(f"vqvae ({name})" for name in names[1:])]
        found = [measured.row(eps=eps, defense=defense) for defense in defenses]
        rows.append((f"{eps:g}", *(f"**{rate(row)}**" if row is lowest else rate(row) for row in found)))
    return markdown(("eps", *names), rows, words=0)


#: What is left out of vqvae_robust, by the name of its rows: what the log calls it, its setting, and a short name.
LEFT_OUT = {
    "whole": ("nothing", "", "all"),
    "without_threshold": ("the threshold, in training and use", "`threshold=null`", "no threshold"),
    "without_attack": ("the attack: block noise instead", "`steps=0`", "no attack in training"),
    "without_guidance": ("the classifier's guidance", "`guidance=0`", "no guidance"),
    "without_stem": ("the convolution at full resolution", "`stem=0`", "no full-resolution convolution"),
    "without_bottleneck": ("the bottleneck", "`bottleneck=0`", "no bottleneck"),
    "without_shift": ("moving the images", "`shift=0`", "images not moved"),
    "without_quantizer": ("**the quantizer**: an autoencoder", "`num_embeddings=0`", "no quantizer"),
}


def _percents(measured: Measured, defense: str, eps: float, **others: str | float) -> list[float]:
    """The accuracies of a purifier, seed by seed. Others: values of more columns."""
    found = measured.where(defense=defense, eps=eps, **others)
    return [100 * int(row["correct"]) / int(row["n"]) for row in sorted(found, key=lambda row: int(row["seed"]))]


def _spread(values: Sequence[float]) -> tuple[str, str]:
    """Mean and standard deviation."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.1f}", f"±{deviation:.1f}"


def _difference(values: Sequence[float], whole: Sequence[float]) -> tuple[float, str, str]:
    """The mean difference, its text, and half of its 95 % interval by Student's t."""
    mean, deviation = mean_and_deviation([one - other for one, other in zip(values, whole, strict=True)])
    half = float(stdtrit(len(values) - 1, 0.975)) * (deviation or 0.0) / sqrt(len(values))
    return mean, f"{mean:+.1f}".replace("-", "−"), f"±{half:.1f}"


#: What is changed in vqvae_certified, by the name of its rows: what the log calls it, and its setting.
CHANGED = {
    "whole": ("nothing", ""),
    "one_threshold": ("one threshold", "`thresholds=[0.5]`"),
    "five_thresholds": ("five thresholds", "`thresholds=[0.31,0.4,0.5,0.6,0.69]`"),
    "no_ramp": ("no ramp: the full eps from the first step", "`warmup=0 ramp=0`"),
    "half_width": (
        "half the channels and features",
        "`convolutions=[[16,5,2,2],[32,4,2,1],[32,3,1,1]] linears=[128]`",
    ),
    "long_codes": ("class codes of 64 numbers in the place of 10", "`dimension=64`"),
}


def ablations(measured: Measured) -> str:
    """Each ingredient of vqvae_robust left out, seed by seed."""
    return _one_by_one(measured, {name: texts[:2] for name, texts in LEFT_OUT.items()}, "left out", "APGD-CE")


def certified_ablations(measured: Measured) -> str:
    """Each ingredient of vqvae_certified changed, seed by seed."""
    return _one_by_one(measured, CHANGED, "changed", "proved")


def _one_by_one(measured: Measured, changes: Mapping[str, tuple[str, str]], changed: str, what: str) -> str:
    """What is left at eps 0.3 after each change. Bold: changes that raised it."""
    whole = _percents(measured, "whole", 0.3)
    rows = []
    for defense, (words, setting) in changes.items():
        left = _percents(measured, defense, 0.3)
        mean, spread = _spread(left)
        gain, difference, half = _difference(left, whole)
        if gain > 0:
            mean, difference = f"**{mean}**", f"**{difference}**"
        seeds = ", ".join(f"{value:.1f}" for value in left)
        last = "" if defense == "whole" else f"{difference} {half}"
        clean = " ".join(_spread(_percents(measured, defense, 0.0)))
        rows.append((words, setting, clean, seeds, f"{mean} {spread}", last))
    return markdown((changed, "as", "clean", f"{what}, seed by seed", "mean", "difference"), rows, words=2)


def ablations_in_short(measured: Measured) -> str:
    """The means alone, on one line."""
    means = [" ".join(_spread(_percents(measured, defense, 0.3))) for defense in LEFT_OUT]
    return markdown([short for *_, short in LEFT_OUT.values()], [means], words=0)


#: The report's model and what takes the quantizer's place in the same encoder and decoder.
RIVALS = {
    "vqvae": "vector quantizer (VQ-VAE)",
    "vae": "Gaussian (VAE)",
    "autoencoder": "nothing (denoising autoencoder)",
}


def quantization(measured: Measured) -> str:
    """The report's model without its quantizer, by training noise: means ± standard deviations over seeds, and the
    difference to it."""

    def of(name: str, noise: float) -> list[list[float]]:
        asked = ((0.0, "gray_box"), (0.3, "gray_box"), (0.3, "adaptive"))
        found = {"noise": noise, "attack": "worst_gradient"}
        return [_percents(measured, name, eps, threat=threat, **found) for eps, threat in asked]

    rows = []
    for noise in sorted({float(row["noise"]) for row in measured.rows if row["noise"]}):
        for name, label in RIVALS.items():
            clean = measured.where(defense=name, noise=noise, eps=0.0, threat="gray_box", attack="worst_gradient")
            error, _ = mean_and_deviation([1000 * float(row["reconstruction_mse"]) for row in clean])
            means = [" ".join(_spread(percents)) for percents in of(name, noise)]
            pairs = zip(of(name, noise), of("vqvae", noise), strict=True)
            differences = ["" if name == "vqvae" else " ".join(_difference(*pair)[1:]) for pair in pairs]
            rows.append((f"{noise:g}", label, f"{error:.1f}", *means, *differences[1:]))
    compared = ("gray-box, to VQ-VAE", "adaptive, to VQ-VAE")
    head = ("noise", "bottleneck", "error", "clean", "gray-box", "adaptive", *compared)
    return markdown(head, rows, words=2)


def diffusion(measured: Measured) -> str:
    """DiffPure beside the report's VQ-VAE and thresholding."""
    asked = (
        ("none", "none", None),
        ("thresholding at 0.5", "binarize", None),
        *((f"VQ-VAE, noise {noise:g}", "vqvae", noise) for noise in (0.25, 0.5)),
        *((f"DiffPure, noise {noise:g}", "diffpure", noise) for noise in (0.25, 0.5)),
    )
    rows = []
    for label, defense, noise in asked:
        place = {"defense": defense} | ({} if noise is None else {"noise": noise})
        gray_box = [measured.row(attack="worst_gradient", eps=eps, threat="gray_box", **place) for eps in (0.0, 0.3)]
        adaptive = measured.where(eps=0.3, threat="adaptive", **place)
        lowest = min(adaptive, key=lambda row: int(row["correct"]), default=None)
        rows.append((label, *map(rate, gray_box), rate(lowest) if lowest else "not measured"))
    return markdown(("purifier", "clean", "gray-box", "adaptive, I-FGSM alone"), rows)


#: Purifiers of colour images, by defense.
ON_COLOUR = {
    "none": "none",
    "jpeg": "JPEG, quality 75",
    "bits": "bit depth 3",
    "median": "median of 3 × 3",
    "vqvae": "VQ-VAE",
    "vae": "VAE",
    "autoencoder": "autoencoder",
}


def colour(measured: Measured) -> str:
    """CIFAR-10: clean accuracy, and what the strongest of three attacks leaves, by eps and threat."""
    rows = []
    for defense, label in ON_COLOUR.items():
        cells = [rate(measured.row(defense=defense, eps=0.0, threat="gray_box", attack="fgsm"))]
        for threat in ("gray_box", "adaptive"):
            for eps in sorted({float(row["eps"]) for row in measured.rows} - {0.0}):
                attacked = measured.where(defense=defense, eps=eps, threat=threat)
                cells.append(rate(min(attacked, key=lambda row: int(row["correct"]))))
        rows.append((label, *cells))
    head = ("purifier", "clean", *(f"{threat}, {n}/255" for threat in ("gray-box", "adaptive") for n in (2, 8)))
    return markdown(head, rows)


def robust(measured: Measured) -> str:
    """vqvae_robust beside thresholding, and the goals."""
    asked = (
        ("clean, 10,000 images", "≥ 98.3", "worst_gradient", 0.0, ""),
        ("gray-box, worst of FGSM, I-FGSM, MI-FGSM, PGD-100, 10,000 images", "≥ 95", "worst_gradient", 0.3, ""),
        ("**adaptive, worst of ten**, first 1,000 images", "≥ 88.5, then 93.3", "worst", 0.3, " (93.3: missed)"),
    )
    rows = []
    for label, goal, attack, eps, remark in asked:
        plain, ours = (measured.row(attack=attack, eps=eps, defense=each) for each in ("binarize", "vqvae_robust"))
        rows.append((label, goal, rate(plain), rate(ours, strong=True) + remark))
    (smooth,) = _certified(100_000)
    radius = f"{smooth.average_radius:.3f} ±{smooth.average_radius_error:.3f}, `vqvae_smooth`: level"
    drawn = f"n = {smooth.certification.n:,}, {len(smooth.images)} images ([below](results.md#certificates))"
    rows.append((f"certified, σ 0.5, average L2 radius, {drawn}", "≥ 1.56", "–", radius))
    rows.append(("training, 2 cores", "≤ 30 min", "none", "34 min by its epochs; seen: 40 (AVX512-BF16)"))
    return markdown(("", "goal", "binarize", "vqvae_robust"), rows)


def fashion(measured: Measured) -> str:
    """Fashion-MNIST: clean, gray-box, adaptive."""
    asked = (
        ("clean, 10,000 images", {"attack": "fgsm", "eps": 0.0, "threat": "gray_box"}),
        ("gray-box, worst of four, first 1,000", {"attack": "worst_gradient", "eps": 0.1}),
        ("adaptive, worst of ten, first 1,000", {"attack": "worst", "eps": 0.1}),
    )
    defenses = ("none", "binarize", "vqvae_robust")
    rows = [(label, *(rate(measured.row(defense=each, **where)) for each in defenses)) for label, where in asked]
    return markdown(("", *defenses), rows)


def proofs(measured: Measured) -> str:
    """The verdicts on all test images, in percent."""
    asked = {"attack": "certified", "n": 10_000, "defense": "vqvae_certified"}
    clean, proved = (measured.row(eps=eps, **asked) for eps in (0.0, max(float(row["eps"]) for row in measured.rows)))
    n = int(proved["n"])
    counts = (int(proved["correct"]), int(proved["refuted"]), int(proved["open"]))
    shares = [percent(count / n, 2) for count in counts]
    line = (percent(int(clean["correct"]) / n, 2), f"**{shares[0]}**", *shares[1:], f"{int(proved['boxes']):,}")
    return markdown(("clean", "proved", "refuted by an image that fools it", "open", "boxes"), [line], words=0)


#: The recipes of the log's section 4, by the name of their rows.
TRIALS = {
    "D1": ("D1", "C, half of the images attacked, up to the head", "2"),
    "D2": ("D2", "D1, all of them; the classifier guides on half of them", "2"),
    "D3": ("D3", "D2, one attack step instead of three", "3"),
    "D4": ("D4", "D3, always from a random start; one of 64 codes for the whole image, added to the map of codes", "3"),
    "D5": ("D5", "D4, attacked through head and classifier both", "2"),
    "D6": ("D6", "D4, head and guidance with weight 1", "3"),
    "D7": ("D7", "D4, a vector for the whole image in place of that code", "3"),
    "D8": ("**D8**", "D7, **and nothing but that vector: the map of codes is made from it**", "3"),
}


def trials(log: Measured) -> str:
    """The log's section 4. The clean accuracy of C is that of section 2."""
    attacked = log.row(attack="apgd_ce", eps=0.3, defense="C_1_epoch", n=1000)
    searched = log.row(attack="threshold", eps=0.3, defense="C_1_epoch", n=400)
    rows = [("", "C", "1", "97.6", share(attacked), f"{share(searched)} (400)")]
    for name, (label, recipe, epochs) in TRIALS.items():
        clean, left = (share(log.row(attack="apgd_ce", eps=eps, defense=name)) for eps in (0.0, 0.3))
        found = log.where(attack="threshold", eps=0.3, defense=name)
        strong = f"**{left}**" if name == "D8" else left
        rows.append((label, recipe, epochs, clean, strong, share(found[0]) if found else ""))
    return markdown(("#", "recipe", "epochs", "clean", "APGD-CE", "threshold search"), rows, words=2)


def _certified(n: int) -> list[CertifiedSet]:
    """The certificates of ``docs/certified`` with so many samples an image, by σ, those through a denoiser first."""
    found = [each for each in load_certified(REPO / "docs" / "certified") if each.certification.n == n]
    return sorted(found, key=lambda each: (each.certification.sigma, each.certification.denoiser is None))


def _certificates(n: int, radii: Sequence[float], digits: int) -> str:
    """Certified accuracy at each radius, ours and then the published one of the same σ; none beyond what n allows."""
    published = {each.sigma: each for each in published_certified()}
    rows = []
    for sigma, sets in groupby(_certified(n), key=lambda each: each.certification.sigma):
        for each in sets:
            rates = [each.at(radius) for radius in radii if radius <= each.limit]
            shown = [f"{percent(found.fraction)} {half_width(found.low, found.high)}" for found in rates]
            shown += [""] * (len(radii) - len(rates))
            denoiser = each.certification.denoiser
            how = "classifier alone" if denoiser is None else f"through {denoiser}"
            average = f"{each.average_radius:.{digits}f} ±{each.average_radius_error:.{digits}f}"
            rows.append((f"σ {sigma:g}, {how}", *shown, average))
        theirs = published[sigma]
        shown = [f"{theirs.percents.get(radius, 0.0):.1f}" if radius <= theirs.limit else "" for radius in radii]
        rows.append((f"σ {sigma:g}, published", *shown, f"{theirs.average_radius:.{digits}f}"))
    return markdown(("", *(f"{radius:g}" for radius in radii), "average radius"), rows)


def certificates() -> str:
    """Of the smaller denoisers, with and without them."""
    return _certificates(10_000, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5), digits=2)


def certificates_of_the_present_denoiser() -> str:
    """Of ``model=vqvae_smooth`` as it is."""
    return _certificates(100_000, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75), digits=3)


#: By the name in a page's comment.
TABLES: dict[str, Callable[..., str]] = {
    "purifiers": purifiers,
    "board": board,
    "the report's protocol": report_protocol,
    "noise at inference": inference_noise,
    "attacks by library": by_library,
    "gradients in bfloat16": precision,
    "verdicts": verdicts,
    "ablations": ablations,
    "ablations in short": ablations_in_short,
    "ablations of the proved one": certified_ablations,
    "quantization": quantization,
    "diffusion": diffusion,
    "colour": colour,
    "robust": robust,
    "fashion": fashion,
    "grid": grid,
    "proofs": proofs,
    "trials": trials,
    "certificates": certificates,
    "certificates of the present denoiser": certificates_of_the_present_denoiser,
}
