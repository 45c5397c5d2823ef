import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

TRAIN = [
    "tensorflow-datasets>=4.9.10",
    "importlib-resources>=6",  # tensorflow-datasets imports it without asking for it
    "tensorboard>=2.20",
    "scikit-learn>=1.6",  # the digits; precision and recall by class
    "scipy>=1.15",  # scipy.stats.bootstrap takes rng
    "matplotlib>=3.9",
    "pillow>=11",
    "filelock>=3.16",
    "rich>=13",
    "jinja2>=3.1",  # the pages of runs and searches
]
TUNE = [
    "keras-tuner[bayesian]>=1.4.8,<1.5",  # tuning/keras_tuner_patches.py takes private names
]
EXPORT = [
    "tf2onnx>=1.17",
    "onnxruntime>=1.20",  # every ONNX export is run before it is done
    "ai-edge-litert>=2",  # likewise LiteRT; TensorFlow's own interpreter is deprecated
    "tensorflow-serving-api>=2.19",  # TF Serving's protocol, 30 kB: warm-up requests, and the client
]
INTERPRET = [
    "matplotlib>=3.9",  # drawings of a network
    "pillow>=11",
    "jinja2>=3.1",  # the page of a network's channels
    "saliency>=0.2.1,<0.3",  # interpretability/saliency_patches.py takes private names
    "scikit-image>=0.25",  # saliency imports it
    "scikit-learn>=1.6",  # factors of an image's activations
    "umap-learn>=0.5.12",  # the layout of an activation atlas
]
ALL = [*TRAIN, *TUNE, *EXPORT, *INTERPRET]
WEB = Path(__file__).parent / "training" / "export" / "web"


class BuildWithWebRuntime(build_py):
    """Fetches what web exports take of onnxruntime-web, where it is missing, so that a wheel has it."""

    def run(self):
        fetching = runpy.run_path(str(WEB / "fetch.py"))
        if not fetching["is_fetched"]():
            try:
                fetching["fetch"]()
            except RuntimeError as error:
                self.warn(f"{error} Without onnxruntime-web, googlenet export --to web is refused.")
        super().run()


setup(
    name="googlenet-keras",
    version="0.1.0",
    description="GoogLeNet (Inception v1) for Keras 3: exact to the paper, trained, searched and exported",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The googlenet-keras maintainers",
    license_expression="Apache-2.0 AND MIT",  # MIT: onnxruntime-web in a wheel
    license_files=["LICENSE", "training/export/web/onnxruntime_license.txt"],
    keywords=["GoogLeNet", "Inception", "Keras", "TensorFlow", "image classification", "ImageNet", "ONNX", "LiteRT"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["inception_v1*", "training*", "tuning*", "interpretability*"]),
    py_modules=["googlenet"],
    cmdclass={"build_py": BuildWithWebRuntime},
    package_data={
        "": ["py.typed", "*.pyi"],
        "inception_v1": ["*.txt"],
        "training.report": ["*.jinja"],
        "training.export.web": ["*.txt", "*.mjs", "page/*", "onnxruntime/**"],
        "tuning.report": ["*.jinja"],
        "interpretability": ["*.jinja"],
    },
    install_requires=[
        "keras>=3.15,<3.16",  # inception_v1/keras_patches.py takes private names, tested with these releases
        # tf.io.decode_image reads WebP. TensorFlow requires protobuf, which reads Caffe's files, and wrapt, which
        # registers the layers as soon as something imports Keras.
        "tensorflow>=2.21",
        "numpy>=2",
        "onnx>=1.17",
        "safetensors>=0.5",
        "lazy-loader>=0.6",  # the packages import their public names on first use
        "tyro>=1.0",
    ],
    extras_require={
        "train": TRAIN,
        "tune": [*TRAIN, *TUNE],
        "export": [*TRAIN, *EXPORT],
        "interpret": [*TRAIN, *INTERPRET],  # networks and images come from runs
        "all": ALL,
        "jax": ["jax>=0.6"],
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "tpu": ["jax[tpu]>=0.6"],
        "bench": [
            *ALL,
            *("torch>=2.9", "torchvision>=0.24", "scikit-image>=0.25", "onnxscript>=0.5", "openvino>=2025.0"),
            "psutil>=6",
        ],
        "docs": [
            *ALL,
            "sphinx>=9,<10",
            "furo>=2025.9",
            "myst-nb>=1.4",  # with myst-parser: pages in Markdown whose examples are executed
            "scikit-image>=0.25",  # photographs of one example
            "cffconvert>=2",
        ],
        "test": [
            *ALL,
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "mypy>=1.18",
            "jax>=0.6",
            "hypothesis>=6.100",
            "sybil>=9",  # finds the blocks of README and docs/
            "setuptools>=77",  # builds the wheel whose installation is tested
            "twine>=6.1",
            "psutil>=6",
            "playwright>=1.60",  # drives Debian's Chromium on pages of web exports
            "scikit-image>=0.25",  # its photographs
            # the original executors of the published families
            "opencv-python-headless>=4.10.0.84,<5",  # 5 reads no Caffe files, earlier ones no NumPy 2
            "tf_slim>=1.1",
            "tf-keras>=2.21",
        ],
    },
    entry_points={"console_scripts": ["googlenet = googlenet:main"]},
)
