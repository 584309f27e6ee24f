"""Makes this folder the package ``benchmarks`` for ``python benchmarks/NAME.py``, as it is for ``python -m``.

Python puts the folder of a script first on its path, so it finds this module there.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parent)]
