"""The tests with PaddleDetection and PaddleSeg: collected only where the toolkit that they are of is installed.

`make test-dense` makes such an environment. Everything that needs no toolkit is tested elsewhere.
"""

import importlib.util

# the beginning of a test file's name -> the package that it needs
NEEDS = {"test_detection": "ppdet", "test_segmentation": "paddleseg"}

collect_ignore_glob = [
    f"{name}*.py" for name, package in NEEDS.items() if importlib.util.find_spec(package) is None
]
