"""What the manifest's fields are called on pages, and how they are grouped. A field that nobody described shows its own name."""

from __future__ import annotations

from dataclasses import dataclass

LABELS: dict[str, tuple[str, str]] = {
    "Manifest.name": (
        "Short name",
        "Stands in addresses and in the command that volunteers run. It stays as it is once published.",
    ),
    "Manifest.title": ("Title", ""),
    "Manifest.description": ("What it is about", "Everybody reads it, on the experiment’s page."),
    "Manifest.admission": ("Who may take part", ""),
    "Manifest.seed": ("Seed", "Everything random follows from it."),
    "Manifest.model": ("Kind of model", ""),
    "Manifest.data": ("Data to learn from", ""),
    "Manifest.bootstrap": (
        "Bootstrap peers",
        "Where newcomers may knock, one a line: ws://host:port/PEERID. Empty is fine: this site introduces agents too.",
    ),
    "Manifest.ice_servers": (
        "STUN and TURN servers",
        "One a line: stun:host:port, or turn:host:port with a user name and a password behind it. Every agent reads them.",
    ),
    "GPTModel.d_model": ("Width", "Numbers per token between layers; a multiple of the heads."),
    "GPTModel.layers": ("Layers", ""),
    "GPTModel.heads": ("Attention heads", ""),
    "GPTModel.sequence": ("Context", "Bytes that the model sees at once."),
    "GPTModel.vocabulary": ("Vocabulary", "256: text is read byte by byte."),
    "GPTModel.expert_hidden": ("Width inside an expert", ""),
    "GPTModel.grid": ("Grid of experts in each layer", "Such as 4 × 4 for 16 experts."),
    "GPTModel.k_best": ("Experts per token", "In each layer; more learn better and cost more traffic."),
    "GPTModel.routing": ("Choose experts for", ""),
    "ImageClassifier.d_model": ("Width per patch", "Numbers between layers; a multiple of the heads."),
    "ImageClassifier.layers": ("Layers of the classifier", ""),
    "ImageClassifier.heads": ("Heads of attention", ""),
    "ImageClassifier.patch": ("Side of a patch", "The image of 8 × 8 pixels is cut into squares."),
    "ImageClassifier.expert_hidden": ("Hidden width of an expert", ""),
    "ImageClassifier.grid": ("Grid of a layer’s experts", "Such as 4 × 4 for 16 experts."),
    "ImageClassifier.k_best": ("Experts per patch", "In each layer; more learn better and cost more traffic."),
    "ImageClassifier.routing": ("Experts are chosen for", ""),
    "PythonStdlib.validation_share": ("Held out for validation", "Share of the files."),
    "Digits.validation_share": ("Held out for validation", "Share of the images."),
    "TextFile.sha256": ("SHA-256 of the file", "So that everybody trains on the same text. Empty takes any file."),
    "TextFile.validation_share": ("Held out for validation", "Share of the text."),
    "Training.batch_size": ("Sequences per batch", "Or images."),
    "Training.batches_in_flight": (
        "Batches in flight",
        "Per trainer. More hide the network’s latency and make gradients staler.",
    ),
    "Training.learning_rate": ("Learning rate of the trunk", "AdamW."),
    "Training.expert_learning_rate": ("Learning rate of experts", "AdamW, one step per batch that an expert serves."),
    "Training.warmup_steps": ("Warm-up, steps", ""),
    "Training.clip_norm": ("Clip gradients at", "Norm."),
    "Training.balance_weight": ("Weight of load balancing", "0 leaves experts to starve."),
    "Training.wire_dtype": ("Numbers travel as", "Everyone computes in float32."),
    "Training.validation_period_s": ("Validate every, seconds", ""),
    "Averaging.period_s": ("Average trunks every, seconds", ""),
    "Rules.lease_s": ("Lease of an expert, seconds", "An expert whose host falls silent for this long is taken over."),
    "Rules.call_timeout_s": ("Longest wait for an expert, seconds", ""),
    "Rules.experts_per_agent_max": ("Most experts on one agent", ""),
    "Rules.batch_rows_max": ("Most rows in one batch of an expert", ""),
}

CHOICES: dict[str, dict[str, str]] = {
    "Manifest.admission": {
        "open": "Anybody, without an account",
        "invite": "Whoever has an invitation link",
        "approval": "Whoever asks, and you admit",
    },
    "Manifest.model": {
        "gpt": "A GPT, which learns to write",
        "image-classifier": "An image classifier, which learns to tell digits apart",
    },
    "Manifest.data": {
        "python-stdlib": "The Python standard library’s sources, which every volunteer has",
        "text": "A text file that every volunteer brings with --data",
        "digits": "Images of handwritten digits, which come with every agent",
    },
    "GPTModel.routing": {"token": "every token by itself", "sequence": "the whole sequence"},
    "ImageClassifier.routing": {"token": "every patch by itself", "sequence": "the whole image"},
    "Training.wire_dtype": {
        "bfloat16": "bfloat16, half the traffic",
        "float16": "float16, half the traffic",
        "float32": "float32, exact",
    },
}


@dataclass(frozen=True)
class Group:
    """One part of the form. A leaf belongs to the first group one of whose prefixes its path begins with."""

    title: str
    prefixes: tuple[str, ...]
    about: str = ""
    folded: bool = False


GROUPS = (
    Group("What it is", ("name", "title", "description")),
    Group(
        "The model",
        ("model",),
        "A transformer whose feed-forward layers are mixtures of experts. The experts live on volunteers’ machines.",
    ),
    Group("The data", ("data",), "No data travels through this site, and it fetches none."),
    Group("Who takes part", ("admission",)),
    Group("Learning", ("training.batch_size", "training.learning_rate", "training.expert_learning_rate", "training.wire_dtype")),
    Group(
        "First contact",
        ("bootstrap", "ice_servers"),
        "How agents find each other. This site hands these on, and never connects to ICE servers.",
    ),
    Group("The fine print", ("",), "Good as they are, unless you know why not.", folded=True),
)


def label(words: str) -> str:
    known = LABELS.get(words)
    return known[0] if known else words.partition(".")[2].replace("_", " ").capitalize()


def hint(words: str) -> str:
    return LABELS.get(words, ("", ""))[1]


def choice(words: str, value: str) -> str:
    return CHOICES.get(words, {}).get(value, value)


def choices(words: str, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """In the order of CHOICES; what is not described comes last."""
    known = [v for v in CHOICES.get(words, {}) if v in values]
    return [(v, choice(words, v)) for v in [*known, *(v for v in values if v not in known)]]


def group_of(path: str) -> Group:
    return next(group for group in GROUPS if any(path.startswith(prefix) for prefix in group.prefixes))
