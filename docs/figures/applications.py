"""Pictures of the applications: those that the examples draw, after training on their made-up data."""

import importlib
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"

#: Picture, named as its example -> settings in place of those of the made-up set: less training is enough here.
PICTURES = {
    "char_lm.png": {"epochs": 4},
    "word_lm.png": {"epochs": 6},
    "ner.png": {},
    "dna.png": {"epochs": 4},
    "sentiment.png": {},
    "names_language.png": {},
    "speaker.png": {},
    "speech_recognition.png": {},
    "video.png": {},
    "music.png": {"epochs": 30},
    "translation.png": {"epochs": 40},
}


def draw(target):
    sys.path.insert(0, str(EXAMPLES))
    try:
        for file, settings in PICTURES.items():
            figure = draw_example(Path(file).stem, settings).figure
            figure.set_figwidth(min(11, figure.get_figwidth()))
            figure.savefig(target / file, dpi=120)
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in ("common", *(Path(file).stem for file in PICTURES)):
            sys.modules.pop(name, None)


def draw_example(name, settings):
    example = importlib.import_module(name)
    training, held_out = example.made_up()
    model = example.make_model(**example.MADE_UP | settings)
    # Those of language models show the held-out loss of every epoch.
    model.fit(*training, *(held_out if name.endswith("_lm") else ()))
    if name == "char_lm":
        return example.picture(model, held_out, steps=32)
    if name == "ner":
        words, _ = example.made_up_raw()
        return example.picture(model, held_out, words[-len(held_out[0]) :])
    return example.picture(model, held_out)
