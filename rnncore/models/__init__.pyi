from os import PathLike

from .classifier import SequenceClassifier as SequenceClassifier
from .generator import SequenceGenerator as SequenceGenerator
from .language import LanguageModel as LanguageModel
from .seq2seq import EncoderDecoder as EncoderDecoder
from .tagger import SequenceTagger as SequenceTagger

Model = LanguageModel | SequenceTagger | SequenceClassifier | SequenceGenerator | EncoderDecoder

def load(path: str | PathLike[str]) -> Model: ...
