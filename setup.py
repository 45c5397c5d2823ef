from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="googlenet-keras",
    version="0.1.0",
    description="GoogLeNet (Inception v1) for Keras 3: exact to the paper, trained, searched and exported",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["inception_v1*", "training*", "tuning*"]),
    py_modules=["googlenet"],
    package_data={"": ["py.typed", "*.pyi"], "inception_v1": ["*.txt"], "tuning.report": ["*.jinja"]},
    install_requires=[
        "keras>=3.15,<3.16",  # inception_v1/keras_patches.py takes private names, tested with these releases
        "numpy>=2",
        "tensorflow>=2.21",  # tf.io.decode_image reads WebP
        "tensorflow-datasets>=4.9.10",
        "importlib-resources",  # tensorflow-datasets imports it without asking for it
        "keras-tuner[bayesian]>=1.4.8,<1.5",  # likewise tuning/keras_tuner_patches.py
        "tf2onnx>=1.17",
        "onnx>=1.17",
        "onnxruntime>=1.20",  # every ONNX export is run before it is done
        "ai-edge-litert>=2",  # likewise LiteRT; TensorFlow's own interpreter is deprecated
        "tensorflow-serving-api>=2.19",  # TF Serving's protocol, 30 kB: warm-up requests, and the client
        "protobuf>=5",
        "safetensors>=0.5",
        "tensorboard>=2.20",
        "scikit-learn>=1.5",  # the digits; precision and recall by class
        "scipy>=1.15",  # scipy.stats.bootstrap takes rng
        "matplotlib>=3.9",
        "pillow>=11",
        "filelock>=3.16",
        "lazy-loader>=0.6",  # the packages import their public names on first use
        "wrapt>=1.17",  # registers the layers as soon as something imports Keras
        "jinja2>=3.1",  # the page of a search
        "rich>=13",
        "tyro>=1.0",
    ],
    extras_require={
        "jax": ["jax>=0.6"],
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "tpu": ["jax[tpu]>=0.6"],
        "bench": ["torch>=2.9", "torchvision>=0.24", "scikit-image>=0.25", "onnxscript>=0.5", "openvino>=2025.0"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "mypy>=1.18",
            "jax>=0.6",
            "hypothesis>=6.100",
            "scikit-image>=0.25",  # its photographs
            # the original executors of the published families
            "opencv-python-headless>=4.10,<5",  # 5 reads no Caffe files
            "tf_slim>=1.1",
            "tf-keras>=2.21",
        ],
    },
    entry_points={"console_scripts": ["googlenet = googlenet:main"]},
)
