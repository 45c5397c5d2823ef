"""GoogLeNet (Inception v1) for Keras 3, exact to the paper and to each published family of weights.

The public names are those of `__init__.pyi`. They are imported on first use, so that a search space or a command line
loads without Keras; Keras finds the classes in saved files all the same.
"""

import lazy_loader

from inception_v1 import registration

registration.register_on_import_of_keras()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
