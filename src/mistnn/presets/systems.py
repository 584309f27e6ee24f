"""Every system, how it is trained, and every kind of images: the one place that knows them all."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from mistnn.data import (
    CommonObjectConfig,
    CommonObjects,
    CubConfig,
    CubImages,
    DistortedConfig,
    DistortedDigits,
    FolderConfig,
    FolderImages,
    GaborConfig,
    GaborNoise,
    NaturalConfig,
    NaturalImages,
    NumberCrops,
    NumberCropsConfig,
    NumbersConfig,
    PlacedNumbers,
    Scatter,
    ScatterConfig,
    Scenes,
    ScenesConfig,
    Split,
    SvhnConfig,
    SvhnImages,
)
from mistnn.errors import MistError
from mistnn.models.air import Air, AirConfig, AirStep, AirStepConfig
from mistnn.models.conncomp import ConnComp, ConnCompConfig, ConnCompStep, ConnCompStepConfig
from mistnn.models.mist import (
    LiftedStep,
    LiftedStepConfig,
    Mist,
    MistConfig,
    NaturalMist,
    NaturalMistConfig,
    NaturalStep,
    NaturalStepConfig,
    SupervisedStep,
    SupervisedStepConfig,
)
from mistnn.models.rivals import (
    Channelwise,
    ChannelwiseConfig,
    Grid,
    GridConfig,
    NaturalXie20,
    NaturalXie20Config,
    RivalStep,
    RivalStepConfig,
    Xie20,
    Xie20Config,
    Zha18,
    Zha18Config,
    Zha18Step,
    Zha18StepConfig,
)
from mistnn.models.spair import Spair, SpairConfig, SpairStep, SpairStepConfig
from mistnn.models.stn import (
    BirdClassifier,
    BirdsConfig,
    Colocaliser,
    ColocaliserConfig,
    ColocaliseStep,
    ColocaliseStepConfig,
    NumberReader,
    NumberReaderConfig,
    StnClassifier,
    StnConfig,
    StnStep,
    StnStepConfig,
)

NaturalModelConfig = NaturalMistConfig | NaturalXie20Config
"""A system for photographs."""

GenerativeConfig = AirConfig | ConnCompConfig | SpairConfig
"""A system that says itself how many objects there are, or is told: one that draws the image, and ConnComp."""

SceneModelConfig = (
    MistConfig
    | GridConfig
    | ChannelwiseConfig
    | Xie20Config
    | Zha18Config
    | NaturalModelConfig
    | GenerativeConfig
    | ColocaliserConfig
)
"""A system that finds objects; which one, is told by the fields of the configuration, here and in the next three."""

ClassifierConfig = StnConfig | NumberReaderConfig | BirdsConfig
"""A system that says what an image shows, and finds no objects."""

ModelConfig = SceneModelConfig | ClassifierConfig
"""Any system."""

TrainingStepConfig = (
    LiftedStepConfig
    | SupervisedStepConfig
    | RivalStepConfig
    | Zha18StepConfig
    | NaturalStepConfig
    | AirStepConfig
    | ConnCompStepConfig
    | SpairStepConfig
    | StnStepConfig
    | ColocaliseStepConfig
)
"""How it is trained."""

ClassifiedConfig = DistortedConfig | NumberCropsConfig | CubConfig
"""Images for a classifier."""

DataConfig = (
    ScenesConfig
    | ScatterConfig
    | GaborConfig
    | FolderConfig
    | SvhnConfig
    | NumbersConfig
    | NaturalConfig
    | ClassifiedConfig
    | CommonObjectConfig
)
"""Images that are made on the fly, a folder of them, or a built folder of photographs; which kind, is told by the
fields of the configuration."""

DataSet = (
    Scenes
    | Scatter
    | GaborNoise
    | FolderImages
    | SvhnImages
    | PlacedNumbers
    | NaturalImages
    | DistortedDigits
    | NumberCrops
    | CubImages
    | CommonObjects
)
"""One split of them."""


GenerativeModel = Air | ConnComp | Spair
"""A network of such a system: ``detect`` gives as many objects as it finds, or as it is told."""

SceneModel = Mist | Grid | Channelwise | Xie20 | Zha18 | NaturalMist | NaturalXie20 | GenerativeModel | Colocaliser
"""A network that is measured: ``explain`` gives its K objects of each image and the images redrawn."""

Classifier = StnClassifier | NumberReader | BirdClassifier
"""A network that says what an image shows."""

AnyModel = SceneModel | Classifier
"""The network of any system."""

SceneStep = (
    LiftedStep
    | SupervisedStep
    | RivalStep
    | Zha18Step
    | NaturalStep
    | AirStep
    | ConnCompStep
    | SpairStep
    | StnStep
    | ColocaliseStep
)
"""One iteration of any system."""


def at_root(data: DataConfig, root: str | None) -> DataConfig:
    """The same images from another folder; Gabor noise needs none."""
    return data if isinstance(data, GaborConfig) else dataclasses.replace(data, root=root)


def open_data(data: DataConfig, split: Split, length: int | None) -> DataSet:
    """The data set of a configuration; of a folder or of SVHN no more images than there are."""
    match data:
        case ScenesConfig():
            return Scenes(data, split, length)
        case ScatterConfig():
            return Scatter(data, split, length)
        case GaborConfig():
            return GaborNoise(data, split, length)
        case FolderConfig():
            return FolderImages(data, split, length)
        case SvhnConfig():
            return SvhnImages(data, split, length)
        case NumbersConfig():
            return PlacedNumbers(data, split, length)
        case NaturalConfig():
            return NaturalImages(data, split, length)
        case DistortedConfig():
            return DistortedDigits(data, split, length)
        case NumberCropsConfig():
            return NumberCrops(data, split, length)
        case CubConfig():
            return CubImages(data, split, length)
        case CommonObjectConfig():
            return CommonObjects(data, split, length)


def size_of(
    data: ScenesConfig
    | ScatterConfig
    | GaborConfig
    | SvhnConfig
    | NumbersConfig
    | DistortedConfig
    | CommonObjectConfig,
) -> tuple[int, int]:
    """Height and width of the images that a model is measured on."""
    return (data.height, data.width) if isinstance(data, SvhnConfig | NumbersConfig) else (data.canvas, data.canvas)


def kind_of(model: ModelConfig) -> str:
    """The name under which a network is stored, see ``mistnn.weights.store.KINDS``."""
    match model:
        case MistConfig():
            return "mist"
        case GridConfig():
            return "grid"
        case ChannelwiseConfig():
            return "channelwise"
        case Xie20Config():
            return "xie20"
        case Zha18Config():
            return "zha18"
        case AirConfig():
            return "air"
        case ConnCompConfig():
            return "conncomp"
        case SpairConfig():
            return "spair"
        case NaturalMistConfig():
            return "natural-mist"
        case NaturalXie20Config():
            return "natural-xie20"
        case StnConfig():
            return "stn"
        case NumberReaderConfig():
            return "stn-numbers"
        case BirdsConfig():
            return "stn-birds"
        case ColocaliserConfig():
            return "colocaliser"


def without_paths(model: ModelConfig) -> ModelConfig:
    """The configuration as it is stored: of a file of weights the name alone, for its place is of this machine."""
    if not isinstance(model, NaturalModelConfig | BirdsConfig) or model.backbone.weights is None:
        return model
    name = PurePath(model.backbone.weights).name
    return dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, weights=name))


def build_model(config: ModelConfig) -> AnyModel:
    """The network of a configuration."""
    match config:
        case MistConfig():
            return Mist(config)
        case GridConfig():
            return Grid(config)
        case ChannelwiseConfig():
            return Channelwise(config)
        case Xie20Config():
            return Xie20(config)
        case Zha18Config():
            return Zha18(config)
        case AirConfig():
            return Air(config)
        case ConnCompConfig():
            return ConnComp(config)
        case SpairConfig():
            return Spair(config)
        case NaturalMistConfig():
            return NaturalMist(config)
        case NaturalXie20Config():
            return NaturalXie20(config)
        case StnConfig():
            return StnClassifier(config)
        case NumberReaderConfig():
            return NumberReader(config)
        case BirdsConfig():
            return BirdClassifier(config)
        case ColocaliserConfig():
            return Colocaliser(config)


def build_step(model: AnyModel, config: TrainingStepConfig) -> SceneStep:
    """The training step of a network.

    Raises:
        MistError: if the network can't be trained that way.
    """
    if isinstance(model, Mist):
        if isinstance(config, LiftedStepConfig):
            return LiftedStep(model, config)
        if isinstance(config, SupervisedStepConfig):
            return SupervisedStep(model, config)
    elif isinstance(model, NaturalMist):
        if isinstance(config, NaturalStepConfig):
            return NaturalStep(model, config)
    elif isinstance(model, Air):
        if isinstance(config, AirStepConfig):
            return AirStep(model, config)
    elif isinstance(model, ConnComp):
        if isinstance(config, ConnCompStepConfig):
            return ConnCompStep(model, config)
    elif isinstance(model, Spair):
        if isinstance(config, SpairStepConfig):
            return SpairStep(model, config)
    elif isinstance(model, Zha18):
        if isinstance(config, Zha18StepConfig):
            return Zha18Step(model, config)
    elif isinstance(model, Classifier):
        if isinstance(config, StnStepConfig):
            return StnStep(model, config)
    elif isinstance(model, Colocaliser):
        if isinstance(config, ColocaliseStepConfig):
            return ColocaliseStep(model, config)
    elif isinstance(config, RivalStepConfig):
        return RivalStep(model, config)
    raise MistError(f"a {type(model).__name__} is not trained by {type(config).__name__}: take a preset's own step")
