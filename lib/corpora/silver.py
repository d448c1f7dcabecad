"""Silver labels: computed from gold tags or word types."""

from pathlib import Path

from lib import sources

CHUNK_GRAMMAR = r"""
NP: {<abn|abl|abx>?<at|dt|dti|dts|dtx|pp\$|wp\$|wdt>?<ap|cd|od|ql|jj|jjr|jjt|jjs|vbn|vbg|(nn|np|nns|nps|nr)\$>*<nn|nns|np|nps|nr|nrs>+}
    {<pn|ppo|pps|ppss|ppl|ppls|pp\$\$|wps|wpo|ex|dt|dts|dti>}
VP: {<to|md|rb|\*>*<md|be.*|hv.*|do.*|\*|rb>*<vb.*|be.*|hv.*|do.*>+<\*>?}
PP: {<in>}
"""  # noqa: E501
"""Chunks over Brown's tags, in the spirit of CoNLL-2000; the first rule that matches a word keeps it."""


LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()
"""WordNet's lexicographer files in the order of their numbers."""


SUFFIXES = {
    "noun": [("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")],
    "verb": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
             ("ied", "y")],
    "adj": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "adv": [],
}  # fmt: skip
"""WordNet's rules of detachment (morphy); its lists of irregular forms are not in the package."""


def chunks(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """BIO labels of noun, verb and prepositional chunks, computed from gold Brown tags by ``CHUNK_GRAMMAR``."""
    import nltk  # a second that only the making of a corpus needs

    parser = nltk.RegexpParser(CHUNK_GRAMMAR)
    return [[tag for _, _, tag in nltk.chunk.tree2conlltags(parser.parse(s))] for s in sentences]


def supersenses(sentences: list[list[tuple[str, str]]]) -> list[list[str]]:
    """The lexicographer file of each word's most frequent WordNet sense in its part of speech; ``O`` for all others."""
    folder = sources.fetch("wordnet")
    classes = {"nn": "noun", "np": "noun", "nr": "noun", "vb": "verb", "be": "verb", "hv": "verb", "do": "verb"}
    classes |= {"jj": "adj", "rb": "adv"}
    senses = {pos: _first_senses(folder, pos) for pos in SUFFIXES}
    known: dict[tuple[str, str], str] = {}

    def label(word: str, tag: str) -> str:
        pos = classes.get(tag[:2])
        if pos is None:
            return "O"
        if (word, pos) not in known:
            lemma = word.lower().removesuffix("'s").removesuffix("'")
            forms = [lemma] + [lemma.removesuffix(a) + b for a, b in SUFFIXES[pos] if lemma.endswith(a)]
            known[word, pos] = next((LEXNAMES[senses[pos][f]] for f in forms if f in senses[pos]), "O")
        return known[word, pos]

    return [[label(word, tag) for word, tag in s] for s in sentences]


def _first_senses(folder: Path, pos: str) -> dict[str, int]:
    """Lemma → number of the lexicographer file of its first (most frequent) sense."""
    files = {}
    for line in (folder / f"data.{pos}").read_text(encoding="utf-8").splitlines():
        if line[0] != " ":
            files[line[:8]] = int(line[9:11])
    first = {}
    for line in (folder / f"index.{pos}").read_text(encoding="utf-8").splitlines():
        if line[0] != " ":
            cells = line.split()
            first[cells[0]] = files[cells[-int(cells[2])]]
    return first
