"""Speech to text: strings of spoken digits.

Many to many without an alignment: a bidirectional LSTM reads cepstrum coefficients, 50 frames a second, and says what
was spoken, trained by CTC on strings of 3 to 7 digits. They are recordings of single digits by one speaker, joined with
random pauses. A language model of telephone numbers then helps in noise.

Data: a folder "recordings" with files {digit}_{speaker}_{take}.wav, 8 kHz (Free Spoken Digit Dataset, Jakobovski and
others). Takes 0 to 4 are held out, or one speaker with --speaker.

    python examples/speech_recognition.py data/digits
    python examples/speech_recognition.py data/digits --speaker theo
    python examples/speech_recognition.py data/digits --transcribe mine.wav
"""

from math import gcd
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from scipy.fft import dct
from scipy.io import wavfile
from scipy.signal import resample_poly, stft

import rnncore as rc

RATE = 8000  # samples a second
WINDOW, HOP, BANDS, COEFFICIENTS = 200, 80, 24, 13  # 25 ms every 10 ms
TOGETHER = 2  # windows in a frame


class Recording(NamedTuple):
    digit: str
    speaker: str
    take: int
    sound: np.ndarray  # (samples,), in [-1, 1]


# ---- from sound to features -----------------------------------------------------------------------------------------


def mel_filters(bins):
    """-> (bins, BANDS): triangles of equal width on the mel scale of pitch"""

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(mel(60), mel(RATE / 2), BANDS + 2)
    places, widths = mel(np.linspace(0, RATE / 2, bins))[:, None], np.diff(edges)
    return np.maximum(0, np.minimum((places - edges[:-2]) / widths[:-1], (edges[2:] - places) / widths[1:]))


def features(sound):
    """sound (samples,) -> cepstrum and its change (T, 2 * COEFFICIENTS * TOGETHER), free of volume and microphone"""
    sound = np.pad(sound, (0, max(0, WINDOW + HOP * (TOGETHER - 1) - len(sound))))
    _, _, spectrum = stft(sound, RATE, nperseg=WINDOW, noverlap=WINDOW - HOP, nfft=256, boundary=None, padded=False)
    power = np.abs(spectrum.T) ** 2 @ mel_filters(len(spectrum))
    cepstrum = dct(np.log(power / max(power.max(), 1e-12) + 1e-5), axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum = (cepstrum - cepstrum.mean(axis=0)) / (cepstrum.std(axis=0) + 1e-3)
    values = np.concatenate([cepstrum, 2 * np.gradient(cepstrum, axis=0)], axis=1)
    T = len(values) // TOGETHER
    return values[: T * TOGETHER].reshape(T, -1).astype(np.float32)


def read_sound(file):
    """A WAV file of any rate, width and number of channels -> (samples,) at RATE"""
    rate, sound = wavfile.read(file)
    if sound.dtype.kind == "u":
        sound = sound - 128.0
    sound = sound / (np.iinfo(sound.dtype).max if sound.dtype.kind == "i" else max(1, np.abs(sound).max(initial=0)))
    sound = sound.mean(axis=1) if sound.ndim == 2 else sound
    divisor = gcd(rate, RATE)
    return resample_poly(sound, RATE // divisor, rate // divisor) if rate != RATE else sound


# ---- strings of digits ----------------------------------------------------------------------------------------------


def speak(text, recordings, rng, noise=1e-4, speed=(1.0, 1.0), volume=(1.0, 1.0)):
    """Join recordings of one speaker with random pauses -> sound"""
    own = {}
    for recording in recordings:
        own.setdefault(recording.digit, []).append(recording.sound)
    tempo, parts = rng.uniform(*speed), [pause(rng)]
    for digit in text:
        sound = own[digit][rng.integers(len(own[digit]))]
        percent = round(100 / (tempo * rng.uniform(0.95, 1.05)))
        sound = resample_poly(sound, percent, 100) if speed[0] < speed[1] else sound
        parts += [sound * rng.uniform(*volume), pause(rng)]
    sound = np.concatenate(parts)
    return sound + noise * rng.normal(size=len(sound))


def pause(rng):
    return np.zeros(int(rng.uniform(0.02, 0.3) * RATE))


def strings(recordings, count, seed, augment=False):
    """Random strings of 3 to 7 digits -> features, texts; augment: other speeds, volumes and noise"""
    rng, X, y = np.random.default_rng(seed), [], []
    speakers = sorted({recording.speaker for recording in recordings})
    of = {speaker: [r for r in recordings if r.speaker == speaker] for speaker in speakers}
    for _ in range(count):
        own = of[rng.choice(speakers)]
        text = "".join(rng.choice(sorted({r.digit for r in own}), size=rng.integers(3, 8)))
        options = {}
        if augment:
            options = {"noise": 10 ** rng.uniform(-4, -2), "speed": (0.8, 1.25), "volume": (0.5, 1.5)}
        X.append(features(speak(text, own, rng, **options)))
        y.append(text)
    return X, y


def read_recordings(path):
    folder, found = Path(path) / "recordings", []
    for file in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, take = file.stem.split("_")
        found.append(Recording(digit, speaker, int(take), read_sound(file)))
    if not found:
        raise ValueError("no recordings")
    return found


def split(recordings, speaker=None):
    """-> training, held-out recordings: by take, or all of a speaker"""
    held_out = [r.take < 5 if speaker is None else r.speaker == speaker for r in recordings]
    if speaker is not None and not any(held_out):
        raise SystemExit(f"no recording of {speaker}; there are {', '.join(sorted({r.speaker for r in recordings}))}")
    return [r for r, out in zip(recordings, held_out, strict=True) if not out], [
        r for r, out in zip(recordings, held_out, strict=True) if out
    ]


def data_of(recordings, speaker=None, count=1500, test_count=200):
    """-> training (features, texts), held-out (features, texts)"""
    training, held_out = split(recordings, speaker)
    return strings(training, count, 0, augment=speaker is not None), strings(held_out, test_count, 1)


def read(path):
    return data_of(read_recordings(path))


def made_up_recordings():
    """The digits as a telephone dials them: each is two tones."""
    low, high, found = (697, 770, 852, 941), (1209, 1336, 1477), []
    rng = np.random.default_rng(0)
    for digit, keys in zip("1234567890", [(k // 3, k % 3) for k in range(9)] + [(3, 1)], strict=True):
        for take in range(12):
            t = np.arange(int(rng.uniform(0.15, 0.3) * RATE)) / RATE
            sound = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in (low[keys[0]], high[keys[1]]))
            found.append(Recording(digit, "telephone", take, 0.2 * sound))
    return found


def made_up():
    return data_of(made_up_recordings(), count=300, test_count=60)


# ---- the model ------------------------------------------------------------------------------------------------------

MADE_UP = {"hidden_size": 32, "num_layers": 1, "epochs": 12, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 96, "num_layers": 2, "dropout": 0.4, "epochs": 10, "batch_size": 16}
    tuned |= {"learning_rate": 3e-3, "learning_rate_decay": 0.9}
    return rc.SequenceTranscriber(random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"label error rate": 1 - model.score(*held_out)}


def telephone_numbers(recordings, noise, seed=2, numbers=40, calls=100):
    """An invented telephone book, and calls to its numbers in noise -> book, features, texts"""
    rng = np.random.default_rng(seed)
    book = ["".join(rng.choice(list("0123456789"), size=7)) for _ in range(numbers)]
    speakers = sorted({recording.speaker for recording in recordings})
    X, y = [], []
    for _ in range(calls):
        text, speaker = str(rng.choice(book)), rng.choice(speakers)
        X.append(features(speak(text, [r for r in recordings if r.speaker == speaker], rng, noise=noise)))
        y.append(text)
    return book, X, y


def in_noise(model, recordings, noise):
    """-> label error rates of telephone numbers in noise, without and with a language model of them"""
    book, X, y = telephone_numbers(recordings, noise)
    language = rc.LanguageModel(hidden_size=64, epochs=60, batch_size=8, learning_rate=5e-3, random_state=0).fit(book)
    rates = [
        rc.metrics.label_error_rate(y, model.predict(X, beam_width=16, **options))
        for options in ({}, {"language_model": language, "lm_weight": 1.5, "insertion_bonus": 1.0})
    ]
    return {"telephone numbers in noise": rates[0], "with a language model": rates[1]}


def picture(model, held_out):
    """Draw what the model hears in each frame of one string."""
    x, text = held_out[0][0], held_out[1][0]
    ax = rc.plots.alignment(model.predict_proba([x])[0], model.classes_, model.alignment(x))
    ax.set_title(f"Spoken: {text}   heard: {model.predict([x])[0]}", fontsize=10, pad=18)
    ax.set_xlabel(f"frames of {1000 * HOP * TOGETHER // RATE} ms")
    return ax


def add_arguments(parser):
    parser.add_argument("--speaker", metavar="NAME", help="hold out this speaker instead of takes 0 to 4")
    parser.add_argument("--transcribe", metavar="WAV", help="transcribe this file when the model is trained")


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv, add=add_arguments)
    recordings = common.load(options, read_recordings, made_up_recordings, __doc__)
    sizes = {} if options.path else {"count": 300, "test_count": 60}
    training, held_out = data_of(recordings, options.speaker, **sizes)
    mine = None if options.transcribe is None else features(read_sound(options.transcribe))
    model = make_model(**{} if options.path else MADE_UP)
    frames = sum(map(len, training[0]))
    print(f"{len(training[0]):,} strings to train on, {frames:,} frames; {len(held_out[0]):,} strings held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out) | in_noise(model, split(recordings, options.speaker)[1], noise=0.01)
    common.show(found)
    for text, heard in list(zip(held_out[1], model.predict(held_out[0]), strict=True))[:5]:
        print(f"spoken {text:8} heard {heard}")
    if mine is not None:
        print(f"{options.transcribe}: {model.predict([mine])[0]}")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
