"""What checks the package's annotations while the tests run: beartype, with whole numbers as floats."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
