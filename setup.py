"""Package definition; the tested versions are pinned in requirements.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="mmseg_ext",
    version="0.1.0",
    description="Road extraction for open-pit mines: D-SegNeXt and its baselines on MMSegmentation 0.30",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["mmseg_ext", "mmseg_ext.*"]),
    install_requires=[
        "torch>=2.6,<2.12",
        "torchvision>=0.21,<0.27",
        "mmcv>=1.7.2,<1.8",
        "mmsegmentation>=0.30,<0.31",
        "timm>=1.0.15,<2",
        "numpy>=1.26,<3",
        "opencv-python>=4.9,<6",
        "pillow>=10",
        "torchprofile>=0.0.4,<0.1",
        "safetensors>=0.4",
        "tensorboard>=2.15",
        "tqdm>=4.66",
    ],
    extras_require={
        "geo": ["rasterio>=1.4", "shapely>=2.0", "pyogrio>=0.10"],
        "roads": ["scikit-image>=0.24", "networkx>=3.2", "scipy>=1.11"],
        "gis": ["geopandas>=1.0", "pyarrow>=16", "shapely>=2.1", "mmseg_ext[geo,roads]"],
        "export": ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20", "openvino>=2025.0", "nncf>=2.14"],
        "peers": ["segmentation-models-pytorch>=0.4"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "psutil>=5.9",
            "playwright>=1.40",
            "hypothesis>=6.100",
            "geojson-validator>=0.7",
            "geoparquet-validator>=0.2",
            "ruff>=0.9",
            "mypy>=1.13",
            "import-linter>=2.1",
        ],
        "plots": ["matplotlib>=3.9"],
    },
)
