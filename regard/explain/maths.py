"""Equations as they are typed ("a_ij = e^{s_ij} / Σ_j e^{s_ij}"), read once and set as MathML and as mathtext.

Read are sub- and superscripts (s_ij, e^{…}, W_q, k^R, qᵀ, x²), roots (√Dk) and accents; the rest stands in its order.
Words of a sentence between formulas stay words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from html import escape

FUNCTIONS = frozenset(
    {"softmax", "tanh", "sigmoid", "max", "min", "mean", "exp", "log", "sin", "cos", "mod", "clamp", "argmax", "argmin"}
    | {"onehot", "elu", "Diag", "layout", "valid", "doc", "bucket", "mask", "Multinoulli", "hash", "sign", "relu"}
    | {"entmax", "sparsemax", "attention", "Attn", "SWA", "PE", "base", "top", "own"}
)
RAISED = {"ᵀ": "T", "²": "2", "³": "3", "⁺": "+", "⁻": "-"}
LOWERED = {"₊": "+", "₁": "1", "₂": "2", "₃": "3"}
ACCENTS = {"\u0302": ("^", r"\hat"), "\u0303": ("~", r"\tilde"), "\u0304": ("¯", r"\bar")}
_PIECE = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[^\W\d_](?:[A-Za-z]*)[\u0302-\u0304]?)|(?P<sign>.)", re.DOTALL
)


@dataclass(frozen=True)
class Atom:
    """A letter, number or sign with what is written below and above it. kind: name, word, number, sign, space, root."""

    kind: str
    text: str
    below: tuple[Atom, ...] = ()
    above: tuple[Atom, ...] = ()
    inside: tuple[Atom, ...] = ()


def read(text: str) -> tuple[Atom, ...]:
    """An equation as atoms in their order."""
    return tuple(_Reader(unicodedata.normalize("NFD", text.replace("<=", "≤").replace(">=", "≥"))).atoms(""))


class _Reader:
    def __init__(self, text: str) -> None:
        # decompose only letters with accents; "÷" and friends have no decomposition
        self.pieces = [(m.lastgroup or "sign", m.group()) for m in _PIECE.finditer(text)]
        self.at = 0

    def atoms(self, until: str) -> list[Atom]:
        found: list[Atom] = []
        while self.at < len(self.pieces) and self.pieces[self.at][1] != until:
            found.append(self.atom(bool(found) and found[-1].kind != "sign"))
        self.at += 1 if until else 0
        return found

    def atom(self, after: bool = False) -> Atom:
        kind, text = self.pieces[self.at]
        self.at += 1
        if text == "√" and self.at < len(self.pieces):
            return Atom("root", "", inside=tuple(self._rooted()))
        made = _named(text) if kind == "name" else Atom(kind, text)
        return self._scripts(made) if kind in ("name", "number") or text in ")]}‖∇ΣΦ" else made

    def _rooted(self) -> list[Atom]:
        if self.pieces[self.at][1] != "(":
            return [self.atom()]
        self.at += 1
        return self.atoms(")")

    def _scripts(self, base: Atom) -> Atom:
        below, above = base.below, base.above
        while self.at < len(self.pieces):
            text = self.pieces[self.at][1]
            if text == "_" and not below:
                below = self._script()
            elif text == "^" and not above:
                above = self._script()
            elif text in RAISED and not above:
                self.at += 1
                above = (Atom("name" if text == "ᵀ" else "number", RAISED[text]),)
            elif text in LOWERED and not below:
                self.at += 1
                below = (Atom("number", LOWERED[text]),)
            elif text in "'′" and not above:
                self.at += 1
                above = (Atom("sign", "′"),)
            else:
                break
        return Atom(base.kind, base.text, below, above)

    def _script(self) -> tuple[Atom, ...]:
        self.at += 1
        if self.at >= len(self.pieces):
            return ()
        kind, text = self.pieces[self.at]
        self.at += 1
        if text == "{":
            return tuple(self.atoms("}"))
        if kind == "name":
            return (Atom("name" if len(text) < 3 or text.isupper() else "word", text),)
        return (Atom(kind, text),)


def _named(text: str) -> Atom:
    if text in ("Dk", "Dv", "Dn", "dR"):
        return Atom("name", text[0], (Atom("name", text[1]),))
    letters = re.sub("[\u0302-\u0304]", "", text)
    return Atom("name" if len(letters) == 1 else "function" if letters in FUNCTIONS else "word", text)


# ---- MathML ----------------------------------------------------------------------------------------------------------


def mathml(text: str) -> str:
    """The sentence as HTML: formulas as <math>, words between them as words."""
    parts: list[str] = []
    run: list[Atom] = []
    for atom in _spaced(read(text)):
        if atom.kind == "word":
            parts += [_math(run), escape(unicodedata.normalize("NFC", atom.text))]
            run = []
        else:
            run.append(atom)
    return "".join([*parts, _math(run)])


def _spaced(atoms: tuple[Atom, ...]) -> list[Atom]:
    """One-letter words that stand before a word ("a key") are words too."""
    found = list(atoms)
    for at in range(len(found) - 2):
        if found[at].text in ("a", "i") and found[at].kind == "name" and found[at + 1].kind == "space":
            plain = not found[at].below and not found[at].above
            if plain and found[at + 2].kind == "word":
                found[at] = Atom("word", found[at].text)
    return found


def _math(atoms: list[Atom]) -> str:
    inner = "".join(map(_element, atoms))
    lead = " " if atoms and atoms[0].kind == "space" else ""
    tail = " " if atoms and atoms[-1].kind == "space" else ""
    if not inner.strip() or all(
        atom.kind == "space" or (atom.kind == "sign" and atom.text in ",.;:()") for atom in atoms
    ):
        return escape("".join(atom.text for atom in atoms))
    return f"{lead}<math>{inner}</math>{tail}"


def _element(atom: Atom) -> str:
    base = _base(atom)
    if not atom.below and not atom.above:
        return base
    below, above = (f"<mrow>{''.join(map(_element, side))}</mrow>" for side in (atom.below, atom.above))
    if atom.below and atom.above:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    return f"<msub>{base}{below}</msub>" if atom.below else f"<msup>{base}{above}</msup>"


def _base(atom: Atom) -> str:
    if atom.kind == "space":
        return '<mspace width="1em"/>' if len(atom.text) > 1 else ""
    if atom.kind == "root":
        return f"<msqrt>{''.join(map(_element, atom.inside))}</msqrt>"
    accent = next((ACCENTS[c][0] for c in atom.text if c in ACCENTS), None)
    letters = escape("".join(c for c in atom.text if c not in ACCENTS))
    tag = {"number": "mn", "sign": "mo", "word": "mtext"}.get(atom.kind, "mi")
    if accent is None and atom.kind == "name" and len(letters) > 1 and "&" not in letters:
        return "".join(f"<mi>{letter}</mi>" for letter in letters)
    if accent is None:
        return f"<mo>{letters}</mo>" if letters == "Σ" else f"<{tag}>{letters}</{tag}>"
    return f'<mover accent="true"><{tag}>{letters}</{tag}><mo>{accent}</mo></mover>'


# ---- mathtext --------------------------------------------------------------------------------------------------------

SIGNS = {
    "·": r"\cdot ", "Σ": r"\Sigma ", "∈": r"\in ", "∪": r"\cup ", "≤": r"\leq ", "≥": r"\geq ", "←": r"\leftarrow ",
    "⊙": r"\odot ", "⊗": r"\otimes ", "‖": r"\Vert ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⟨": r"\langle ",
    "⟩": r"\rangle ", "∇": r"\nabla ", "≈": r"\approx ", "×": r"\times ", "−": "-", "{": r"\{", "}": r"\}", "%": r"\%",
    "$": r"\$", "#": r"\#", "_": r"\_", "^": r"\^{}", "~": r"\sim ", "…": r"\ldots ", "→": r"\rightarrow ",
    "∃": r"\exists ", "∞": r"\infty ", "\\": r"\backslash ", "<": "<", ">": ">", "∼": r"\sim ",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "η": "eta", "θ": "theta", "λ": "lambda", "σ": "sigma",
    "τ": "tau", "φ": "phi", "ω": "omega", "ε": "epsilon", "ρ": "rho", "μ": "mu", "π": "pi", "Σ": "Sigma", "Φ": "Phi",
}  # fmt: skip


def mathtext(text: str) -> str:
    """The sentence for matplotlib's mathtext: one string between dollars."""
    return f"${''.join(map(_tex, _spaced(read(text))))}$"


def _tex(atom: Atom) -> str:
    if atom.kind == "space":
        return r"\quad " if len(atom.text) > 1 else r"\ "
    if atom.kind == "root":
        return rf"\sqrt{{{''.join(map(_tex, atom.inside))}}}"
    below = f"_{{{''.join(map(_tex, atom.below))}}}" if atom.below else ""
    above = f"^{{{''.join(map(_tex, atom.above))}}}" if atom.above else ""
    return f"{_tex_base(atom)}{below}{above}"


def _tex_base(atom: Atom) -> str:
    accent = next((ACCENTS[c][1] for c in atom.text if c in ACCENTS), None)
    letters = "".join(c for c in atom.text if c not in ACCENTS)
    if letters in GREEK:
        letters = f"\\{GREEK[letters]} "
    elif atom.kind in ("word", "function"):
        letters = rf"\mathrm{{{letters}}}"
    elif atom.kind == "sign":
        letters = SIGNS.get(letters, letters)
    return rf"{accent}{{{letters}}}" if accent else letters
