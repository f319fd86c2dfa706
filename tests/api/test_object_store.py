"""Job folders on object storage: in this process's memory, and on a real S3 server in another process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from helpers import mask, sha, strips
from s3_server import serving

import urst_tiles as ut
from urst_tiles.job import folder as job_module
from urst_tiles.job.folder import Job
from urst_tiles.storage import stores
from urst_tiles.storage.stores import names_in, path_of

STYLE = "hokusai-wave"
SMALL = {"tile": 128, "block": 256, "thumbnail": 128, "precision": "float32"}
FLAGS = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
#: A lock of this machine goes by the address of a job, so each process of the tests has a bucket of its own
#: name.
BUCKET = f"bucket-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"

Store = Callable[[str], str]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server with a bucket."""
    with serving(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket, which this process and its children reach."""
    import s3fs

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    urlopen(f"{server}/moto-api/reset", data=b"").close()
    s3fs.S3FileSystem().mkdir(BUCKET)
    return f"s3://{BUCKET}"


#: For a test whose object store is a server in the quick run too; the others ask that one in the slow run.
both = pytest.mark.parametrize("store", ["memory", "s3"], indirect=True)


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address under which there is nothing yet."""
    if request.param == "s3":
        yield request.getfixturevalue("s3") + "/jobs"
        return
    stores.remove(path_of(f"memory://{BUCKET}"))
    yield f"memory://{BUCKET}"
    stores.remove(path_of(f"memory://{BUCKET}"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that must be unpacked first."""
    return strips(tmp_path_factory.mktemp("object store") / "a b.tif")


@pytest.fixture(scope="module")
def exact(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what it becomes by exact statistics, with a local folder."""
    output = tmp_path_factory.mktemp("exact") / "local.tif"
    ut.stylize(scene, output, STYLE, statistics="exact", **SMALL)
    return sha(output)


@pytest.fixture(scope="module")
def good(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a job of the scene must become."""
    output = tmp_path_factory.mktemp("good") / "good.tif"
    ut.stylize(scene, output, STYLE, **SMALL)
    return output.read_bytes()


def left(store: str) -> list[str]:
    """Every object there is."""
    path = path_of(store)
    return path.fs.find(path.path)  # type: ignore[attr-defined]


@both
def test_the_bytes_are_those_of_a_local_folder(store: str, scene: Path, exact: str, tmp_path: Path) -> None:
    """Spool, exact moments, network and parts all lie in the store, and go from it at the end."""
    seen = set[str]()

    def look(stage: str, done: int, total: int) -> None:
        if stage == "overviews":
            seen.update(name.split("/job 1/")[1].split("/")[0] for name in left(store))

    options = {**SMALL, "statistics": "exact"}
    folder = path_of(f"{store}/job 1")
    report = ut.stylize(scene, tmp_path / "out.tif", STYLE, job_dir=folder, progress=look, **options)
    assert sha(tmp_path / "out.tif") == exact
    assert report.blocks_run == 6
    assert seen == {"job.json", "written.json", "source", "moments", "net.safetensors", "parts"}
    assert left(store) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tif"]


@pytest.mark.slow
def test_workers_on_machines_that_share_nothing_else(s3: str, run, scene: Path, tmp_path: Path) -> None:
    """Saved here; a worker killed -9; two workers at once, one with two processes; assembled."""
    styles = ["--mask", mask(tmp_path / "mask.tif"), "--style", f"1={STYLE}", "--style", "2=munch-scream"]
    assert run("stylize", scene, tmp_path / "whole.tif", *styles, *FLAGS).returncode == 0
    job, output = f"{s3}/deep/er/job", tmp_path / "out.tif"
    done = run("plan", scene, output, *styles, *FLAGS, "--save", job)
    assert done.returncode == 0 and f"saved        {job}" in done.stdout, done.stderr
    own = {"job.json", "written.json", "request.json", "source", "net.safetensors", "mask.npy"}
    assert names_in(path_of(job)) == own
    victim = started("work", job)
    while len(names_in(path_of(job) / "parts")) < 2:
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    assert victim.wait() < 0
    done = run("assemble", job)
    assert done.returncode == 1 and f"`urst-tiles work {job}`" in done.stderr
    both = [started("work", job, "--shard", f"{i}/2", "--workers", str(i)) for i in (1, 2)]
    assert [one.wait() for one in both] == [0, 0]
    done = run("assemble", job, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert sha(output) == sha(tmp_path / "whole.tif") and left(s3) == []


def started(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "urst_tiles", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def saved(store: str, scene: Path, tmp_path: Path) -> Path:
    """A job whose blocks are all made."""
    ut.save_job(f"{store}/job", scene, tmp_path / "out.tif", STYLE, **SMALL)
    assert ut.work_job(f"{store}/job").missing == 0
    return path_of(f"{store}/job")


@both
def test_damaged_and_lost_objects_are_made_again(
    store: str, scene: Path, good: bytes, tmp_path: Path
) -> None:
    job = saved(store, scene, tmp_path)
    first, second = sorted((job / "parts").glob("0*"))[:2]
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(bytes(content))
    second.unlink()
    with pytest.raises(ut.UrstError, match=r"1 of 6 blocks are missing \(1\)"):
        ut.assemble_job(job)
    assert ut.work_job(job).blocks_run == 1
    with pytest.raises(ut.DamagedFile, match="tile 0 .* fails its checksum; what is damaged was removed"):
        ut.assemble_job(job)
    assert not first.exists()
    assert ut.work_job(job).blocks_run == 1
    ut.assemble_job(job)
    assert (tmp_path / "out.tif").read_bytes() == good


def test_another_job_is_refused_and_nothing_else_is_ever_removed(
    store: str, scene: Path, tmp_path: Path
) -> None:
    job = saved(store, scene, tmp_path)
    before = left(store)
    with pytest.raises(ut.UrstError, match="holds another job: .*alpha"):
        ut.save_job(job, scene, tmp_path / "out.tif", STYLE, alpha=0.5, **SMALL)
    with pytest.raises(ut.UrstError, match="holds something else than a job .'job', say."):
        ut.save_job(store, scene, tmp_path / "out.tif", STYLE, overwrite=True, **SMALL)
    assert left(store) == before


def test_objects_of_the_user_stay(store: str, scene: Path, good: bytes, tmp_path: Path) -> None:
    """Those among the job's own, when it starts anew and when it ends; a prefix of theirs is not taken."""
    job = saved(store, scene, tmp_path)
    mine = ["source/notes.txt", "parts/mine.tif", "parts/.mine.0123456789ab.tmp", "thesis.tex"]
    for name in mine:
        (job / name).write_bytes(b"mine")
    ut.save_job(job, scene, tmp_path / "out.tif", STYLE, overwrite=True, **SMALL)
    assert ut.work_job(job).blocks_run == 6, "nothing of the old job was left"
    ut.assemble_job(job)
    assert (tmp_path / "out.tif").read_bytes() == good
    assert sorted(name.split("/job/")[1] for name in left(store)) == sorted(mine)
    with pytest.raises(ut.UrstError, match="holds something else than a job"):
        ut.stylize(scene, tmp_path / "again.tif", STYLE, job_dir=job, overwrite=True, **SMALL)
    assert len(left(store)) == len(mine)


@both
def test_the_lock_of_a_store_is_no_name_that_others_can_take(store: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / f"urst-tiles-{os.getuid()}"
    job = Job(path_of(f"{store}/job"))
    with job.locked():
        (lock,) = folder.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(ut.UrstError, match="is a symbolic link"), job.locked():
        pass
    lock.unlink()
    folder.chmod(0o777)
    with pytest.raises(ut.BadInput, match="is not a folder of yours alone"), job.locked():
        pass
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ut.BadInput, match="is not a folder of yours alone"), job.locked():
        pass
    assert (tmp_path / "victim").read_text() == "mine"


@both
def test_of_two_machines_one_signs(store: str) -> None:
    """Both saw nothing; the second to write finds the first's job."""
    folder = path_of(f"{store}/job")
    ours, theirs = Job(folder), Job(folder)
    theirs.claim({"tile": "1"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "names_in", lambda folder: set())
        patch.setattr(Job, "identity", property(_turns()))
        with pytest.raises(ut.UrstError, match="tile was 1 and is 2"):
            ours.claim({"tile": "2"})
    assert theirs.identity == {"tile": "1"}


def _turns() -> Callable[[Job], dict[str, str] | None]:
    """What a job says of itself: nothing when asked first, then the truth."""
    real, asked = Job.identity.fget, list[int]()

    def identity(self: Job) -> dict[str, str] | None:
        asked.append(1)
        return None if len(asked) == 1 else real(self)  # type: ignore[misc]

    return identity


def test_a_kill_while_a_job_is_removed(store: str, scene: Path, good: bytes, tmp_path: Path) -> None:
    job = saved(store, scene, tmp_path)
    removed = list[Path]()

    def stop(path: Path) -> None:
        if removed:
            raise RuntimeError("killed")
        stores.remove(path)
        removed.append(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "remove", stop)
        with pytest.raises(RuntimeError, match="killed"):
            ut.assemble_job(job)
    assert (tmp_path / "out.tif").read_bytes() == good and removed and left(store)
    with pytest.raises(ut.UrstError, match="there is no job in"):
        ut.work_job(job)
    report = ut.stylize(scene, tmp_path / "again.tif", STYLE, job_dir=job, **SMALL)
    assert (tmp_path / "again.tif").read_bytes() == good and report.blocks_kept == 0 and left(store) == []


@pytest.mark.parametrize("stage", ["overviews", "assembling"])
def test_two_assemblies_of_one_job(
    store: str, scene: Path, good: bytes, tmp_path: Path, monkeypatch, stage: str
) -> None:
    """As on two machines, which no lock keeps apart: one ends while the other is in the middle."""
    job = saved(store, scene, tmp_path)
    output, met = tmp_path / "out.tif", list[str]()
    monkeypatch.setattr(job_module.fcntl, "flock", lambda *arguments: None)

    def other(now: str, done: int, total: int) -> None:
        if now == stage and not met:
            met.append(now)
            ut.assemble_job(job)
            assert output.read_bytes() == good

    try:
        ut.assemble_job(job, progress=other)
    except ut.UrstError as error:
        assert "another process" in str(error)
    assert met and output.read_bytes() == good and left(store) == []
    assert {path.name for path in tmp_path.iterdir()} == {"out.tif"}


def test_a_kill_while_a_finished_job_is_removed_is_known(
    store: str, scene: Path, good: bytes, tmp_path: Path, monkeypatch
) -> None:
    job = saved(store, scene, tmp_path)

    def stop(path: Path) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "remove", stop)
        with pytest.raises(RuntimeError, match="killed"):
            ut.assemble_job(job)
    report = ut.assemble_job(job)
    assert report.blocks_run == 0 and report.output.read_bytes() == good and left(store) == []


def test_a_spool_counts_only_when_it_is_whole(
    store: str, scene: Path, good: bytes, tmp_path: Path, monkeypatch
) -> None:
    from urst_tiles.source import spool

    real, put = stores.put, list[Path]()

    def failing(local: Path, path: Path) -> None:
        put.append(path)
        if len(put) == 2:
            raise RuntimeError("killed")
        real(local, path)

    folder = path_of(f"{store}/job")
    with monkeypatch.context() as patch:
        patch.setattr(spool, "put", failing)
        patch.setattr(Job, "_leave", lambda *arguments: None)  # as a kill, which leaves everything
        with pytest.raises(RuntimeError, match="killed"):
            ut.stylize(scene, tmp_path / "out.tif", STYLE, job_dir=folder, **SMALL)
    assert any("spool" in name for name in left(store))
    ut.stylize(scene, tmp_path / "out.tif", STYLE, job_dir=folder, **SMALL)
    assert (tmp_path / "out.tif").read_bytes() == good


def test_a_lost_chunk_of_the_spool_is_made_again_and_never_fill(
    store: str, scene: Path, good: bytes, tmp_path: Path
) -> None:
    ut.save_job(f"{store}/job", scene, tmp_path / "out.tif", STYLE, **SMALL)
    chunk = next(name for name in left(store) if "/colour/c/" in name)
    path = path_of(store)
    path.fs.rm_file(chunk)  # type: ignore[attr-defined]
    assert ut.work_job(f"{store}/job").missing == 0 and chunk in left(store)
    ut.assemble_job(f"{store}/job")
    assert (tmp_path / "out.tif").read_bytes() == good


def test_a_store_that_fails_for_a_moment(
    store: str, scene: Path, good: bytes, tmp_path: Path, monkeypatch
) -> None:
    """Each block is tried again; one that always fails is named, and made by the next call."""
    ut.save_job(f"{store}/job", scene, tmp_path / "out.tif", STYLE, **SMALL)
    real, tried = stores.put, dict[str, int]()

    def put(local: Path, path: Path) -> None:
        tried[path.name] = tried.get(path.name, 0) + 1
        if tried[path.name] == 1 or path.name == "00001-00002.tif":
            raise ConnectionError("the network is gone")
        real(local, path)

    with monkeypatch.context() as patch:
        patch.setattr("urst_tiles.storage.publish.put", put)
        with pytest.raises(ut.BlocksFailed, match=r"1 block failed \(5\)"):
            ut.work_job(f"{store}/job")
    assert tried == {f"{r:05d}-{c:05d}.tif": 3 if (r, c) == (1, 2) else 2 for r in (0, 1) for c in (0, 1, 2)}
    assert ut.work_job(f"{store}/job").blocks_run == 1
    ut.assemble_job(f"{store}/job")
    assert (tmp_path / "out.tif").read_bytes() == good


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("s3://nobucket/job", "there is no bucket for s3://nobucket/job/job.json"),
        ("s4://bucket/job", "cannot be reached (Unsupported filesystem: 's4')"),
        ("gs://bucket/job", "needs a library that is not installed"),
    ],
)
def test_stores_that_cannot_be_used(
    run, s3: str, scene: Path, tmp_path: Path, folder: str, words: str
) -> None:
    done = run("stylize", scene, tmp_path / "out.tif", "--style", STYLE, "--job-dir", folder, *FLAGS)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("urst-tiles"), done.stderr
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_credentials(run_apart, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: this one has shown its credentials."""
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = run_apart("work", f"{s3}/job")
    assert done.returncode == 2 and "cannot be reached (Unable to locate credentials)" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_server_that_goes_away(run, s3: str, scene: Path, tmp_path: Path, monkeypatch) -> None:
    """Between two requests that no block makes."""
    from botocore.exceptions import EndpointConnectionError

    def gone(*arguments: object, **more: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://10.0.0.1")

    monkeypatch.setattr("urst_tiles.api.stylize.finish_output", gone)
    done = run("stylize", scene, tmp_path / "out.tif", "--style", STYLE, "--job-dir", f"{s3}/job", *FLAGS)
    assert done.returncode == 1 and done.stderr.count("urst-tiles: ") == 1, done.stderr
    assert "http://10.0.0.1" in done.stderr and "the same command goes on" in done.stderr


@both
def test_two_runs_on_one_machine_are_kept_apart(store: str) -> None:
    with (
        Job(path_of(f"{store}/job")).locked(),
        pytest.raises(ut.UrstError, match="works on"),
        Job(path_of(f"{store}/job")).locked(),
    ):
        pass
    with Job(path_of(f"{store}/job")).locked():
        pass


@pytest.mark.slow
@both
def test_levels_of_a_painting_on_an_object_store(
    store: str, picture: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a local folder; a stopped job goes on from the level that was painted; nothing is left."""
    import tifffile

    from urst_tiles.api import levels

    scene = tmp_path / "scene.tif"
    tifffile.imwrite(scene, picture(290, 370), tile=(128, 128), photometric="rgb")
    options = {**SMALL, "model": "painter", "stroke": 4, "threads": 1, "thumbnail": 64}
    ut.stylize(scene, tmp_path / "local.tif", "monet-water-lilies", **options)
    painted, stops = [], [True]

    def stop(job: Job, *rest: object) -> object:
        image = before(job, *rest)  # type: ignore[arg-type]
        if len(str(job.folder).rsplit("/above", 1)) == 1 and stops:
            stops.clear()
            raise KeyboardInterrupt
        return image

    def counted(job: Job, *rest: object) -> None:
        painted.append(str(job.folder))
        paint(job, *rest)  # type: ignore[arg-type]

    before, paint = levels.level_of, levels._paint
    monkeypatch.setattr(levels, "level_of", stop)
    monkeypatch.setattr(levels, "_paint", counted)
    job = f"{store}/job"
    with pytest.raises(KeyboardInterrupt):
        ut.stylize(scene, tmp_path / "out.tif", "monet-water-lilies", job_dir=job, **options)
    assert path_of(f"{job}/above.zarr/whole").exists() and len(painted) == 2
    ut.stylize(scene, tmp_path / "out.tif", "monet-water-lilies", job_dir=job, **options)
    assert len(painted) == 2, "a level was painted again"
    assert sha(tmp_path / "out.tif") == sha(tmp_path / "local.tif")
    assert not [path for path in path_of(job).rglob("*") if path.is_file()]
    stops.append(True)
    with pytest.raises(KeyboardInterrupt):
        ut.stylize(scene, tmp_path / "new.tif", "munch-scream", job_dir=job, **options)
    anew = options | {"job_dir": job, "overwrite": True}
    ut.stylize(scene, tmp_path / "new.tif", "monet-water-lilies", **anew)
    assert sha(tmp_path / "new.tif") == sha(tmp_path / "local.tif")
    assert not [path for path in path_of(job).rglob("*") if path.is_file()]
