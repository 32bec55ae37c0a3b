"""Every data set is complete, found by its name, and cheap to ask for."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadline.cli import app
from leadline.data.datasets import DATASETS, CustomDataset, DataSpec
from leadline.data.datasets.digits import Digits
from leadline.data.datasets.mnist import MNIST
from leadline.data.pickled_dataset import PickledDataSpec
from leadline.data.published import PublishedDataSpec
from leadline.errors import SpecError
from leadline.networks import cifar_resnet
from leadline.parts.augmentations import AUGMENTATIONS, CustomAugmentation
from leadline.specs import TrialSpec, canonical_json, parse
from leadline.specs.study import StudySpec

PUBLISHED = ["cifar10", "cifar100", "fashion-mnist", "kmnist", "mnist"]


def test_every_member_is_found_by_its_name() -> None:
    assert sorted(DATASETS.members()) == sorted([*PUBLISHED, "csv", "digits", "hf", "imagefolder", "npz", "parity"])
    assert all(member.__doc__ for member in DATASETS.members().values())


@pytest.mark.parametrize("name", [*PUBLISHED, "digits", "parity"])
def test_what_is_known_is_complete(name: str, tmp_path: Path) -> None:
    spec = DataSpec(name=name)
    known, sizes = spec.metadata(tmp_path), spec.known_sizes
    assert spec.display_name == name and sizes is not None
    assert known.classes in (2, 10, 100) and sizes.train > sizes.test > known.classes
    assert known.class_names is not None and len(set(known.class_names)) == known.classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_complete(name: str) -> None:
    member = DATASETS.members()[name]
    assert issubclass(member, PublishedDataSpec)
    for item in member.downloads:
        assert re.fullmatch(r"[0-9a-f]{64}", item.sha256)
        assert len(item.mirrors) >= 2 and len(set(item.mirrors)) == len(item.mirrors)
        assert item.mirrors[0].startswith("https://") and 0 < item.size < 2**28
        assert all(address.startswith("http") and address.endswith("/" + item.name) for address in item.mirrors)
    assert len({item.sha256 for item in member.downloads}) == len(member.downloads)
    if issubclass(member, PickledDataSpec):
        assert member.parts.train % len(member.train_batches) == member.parts.test % len(member.test_batches) == 0


@pytest.mark.slow
def test_asking_for_data_needs_neither_torch_nor_what_reading_takes() -> None:
    code = (
        "import sys; from leadline.data.datasets import DATASETS; DATASETS.members();"
        " from leadline.specs import DataSpec; DataSpec(name='imagefolder', path='x');"
        " print({'torch', 'pooch', 'PIL', 'pandas', 'sklearn', 'datasets', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


PINNED = [
    (
        {},
        '{"augment":null,"name":"digits","normalise":"channel","subset_seed":0,"test":null,"train":null,"validation":null}',
        "8c0d12bf434975b9a6bd06e557fdd4bc7d60eb86a0445cf0a4d52d92368e085d",
    ),
    (
        {"name": "digits", "train": 100},
        '{"augment":null,"name":"digits","normalise":"channel","subset_seed":0,"test":null,"train":100,"validation":null}',
        "4c85c35d615a4daa94914b078fbe6c6b6ab9b91835ab1557a3cf37515f35fd08",
    ),
    (
        {"name": "mnist", "train": 10000, "validation": 1000},
        '{"augment":null,"name":"mnist","normalise":"channel","subset_seed":0,"test":null,"train":10000,"validation":1000}',
        "1a62f85aca83e42e522a7cdce77a4e2ca9430260fbd17407c41096052f76d370",
    ),
    (
        {"name": "fashion-mnist", "test": 7, "subset_seed": 3},
        '{"augment":null,"name":"fashion-mnist","normalise":"channel","subset_seed":3,"test":7,"train":null,"validation":null}',
        "a780a7090324025d40e34cfecf1dc73b694f1973f069b9af32472d579368c7ac",
    ),
    (
        {"name": "kmnist", "normalise": "none"},
        '{"augment":null,"name":"kmnist","normalise":"none","subset_seed":0,"test":null,"train":null,"validation":null}',
        "4b020dc952d2d322d804798e6e3f8a556e345c22c1e8e40cd4b918e2b14ecd35",
    ),
    (
        {"name": "cifar10", "normalise": "pixel-mean", "augment": {"pad": 4}},
        '{"augment":{"flip":true,"pad":4},"name":"cifar10","normalise":"pixel-mean","subset_seed":0,"test":null,"train":null,"validation":null}',
        "418ed3488f0fdb08c09a9b9f34b4502f7741d992fe08d63235d84140f94feeac",
    ),
    (
        {"name": "cifar100", "augment": {"flip": False}},
        '{"augment":{"flip":false,"pad":4},"name":"cifar100","normalise":"channel","subset_seed":0,"test":null,"train":null,"validation":null}',
        "6a47df4a28a5d88489f9d72a6bf33a53690a05ff68535e9c156bb98a6807b9e7",
    ),
    (
        {"name": "cifar10", "augment": {}},
        '{"augment":{"flip":true,"pad":4},"name":"cifar10","normalise":"channel","subset_seed":0,"test":null,"train":null,"validation":null}',
        "1af8f3c596ade3294df86681fa49466c21aed66b29f7533944196198365b82af",
    ),
    (
        {"name": "parity", "bits": 8},
        '{"augment":null,"bits":8,"name":"parity","normalise":"channel","samples":null,"subset_seed":0,"test":null,"train":null,"validation":null}',
        "2fae29bcb8d4b7bf2b68fa6011621c175b486d0fa65aee1206c03367735ccc50",
    ),
    (
        {"name": "parity", "bits": 20, "samples": 1000, "test": 10},
        '{"augment":null,"bits":20,"name":"parity","normalise":"channel","samples":1000,"subset_seed":0,"test":10,"train":null,"validation":null}',
        "2813de5b575d24422a19f107228c1779cb4ae472a384b3c5317919b5356d820b",
    ),
    (
        {"name": "imagefolder", "path": "x"},
        '{"augment":{"flip":true,"ratio":[0.75,1.3333333333333333],"scale":[0.08,1.0]},"corrupt":"fail","name":"imagefolder","normalise":"channel","path":"x","resize":null,"size":224,"subset_seed":0,"test":null,"train":null,"validation":null}',
        "65a26508539e8de0ac83b9714faac9099846e273814777dfac4c5733c2175143",
    ),
    (
        {
            "name": "imagefolder",
            "path": "x",
            "size": 64,
            "resize": 70,
            "corrupt": "skip",
            "augment": {"ratio": [1.0, 2.0]},
            "normalise": "imagenet",
        },
        '{"augment":{"flip":true,"ratio":[1.0,2.0],"scale":[0.08,1.0]},"corrupt":"skip","name":"imagefolder","normalise":"imagenet","path":"x","resize":70,"size":64,"subset_seed":0,"test":null,"train":null,"validation":null}',
        "053df3d4df34cfc4b2b82bd025869001c5be926d7ef2a2622169add71d3456e7",
    ),
    (
        {"name": "imagefolder", "path": "x", "augment": None},
        '{"augment":null,"corrupt":"fail","name":"imagefolder","normalise":"channel","path":"x","resize":null,"size":224,"subset_seed":0,"test":null,"train":null,"validation":null}',
        "56ca8550c0594fa7446fed3180f09e80866c4167052cfd4264bfbda3b2f1e5c3",
    ),
    (
        {"name": "imagefolder", "path": "x", "augment": {"pad": 2, "flip": False}},
        '{"augment":{"flip":false,"pad":2},"corrupt":"fail","name":"imagefolder","normalise":"channel","path":"x","resize":null,"size":224,"subset_seed":0,"test":null,"train":null,"validation":null}',
        "ea1e0dc4b53b727a7ed30d295d197951fb78c6a9dd1a04e4ae7fb3db554bd397",
    ),
]
"""What was given, the specification as JSON, and the hash of a trial, as they were when data sets were a fixed list."""


@pytest.mark.parametrize(("given", "plain", "trial_hash"), PINNED)
def test_specifications_and_trials_keep_their_identity(given: dict[str, object], plain: str, trial_hash: str) -> None:
    spec = parse(DataSpec, given)
    assert canonical_json(spec.model_dump(mode="json")) == plain
    assert TrialSpec(network=cifar_resnet(20), data=spec).content_hash == trial_hash
    assert parse(DataSpec, spec.model_dump(mode="json")) == spec == DataSpec.model_validate_json(plain)


def test_a_data_set_is_given_by_its_name_its_keys_or_itself() -> None:
    assert parse(TrialSpec, {"network": cifar_resnet(20), "data": "mnist"}).data == MNIST()
    assert parse(TrialSpec, {"network": cifar_resnet(20), "data": {"train": 5}}).data == Digits(train=5)
    spec = DataSpec(name="mnist", train=100)
    assert spec == MNIST(train=100) and isinstance(spec, DataSpec)
    assert spec.with_(train=50) == MNIST(train=50) and pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(SpecError, match="unknown data set 'mnst'; did you mean 'mnist'"):
        DataSpec(name="mnst")
    with pytest.raises(SpecError, match="name: unknown name 'mnst'; did you mean 'mnist'"):
        parse(DataSpec, {"name": "mnst"})


def test_the_schema_of_a_study_has_every_data_set_and_augmentation() -> None:
    text = str(StudySpec.model_json_schema())
    kinds = [*DATASETS.members().values(), *AUGMENTATIONS.members().values(), CustomDataset, CustomAugmentation]
    assert all(f"'{kind.__name__}'" in text for kind in kinds)


def test_a_list_shows_every_data_set() -> None:
    shown = CliRunner().invoke(app, ["list"]).output
    assert all(f"\n{name} " in shown for name in DATASETS.members())
