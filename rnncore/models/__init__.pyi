from os import PathLike

from .language import LanguageModel as LanguageModel

def load(path: str | PathLike[str]) -> LanguageModel: ...
