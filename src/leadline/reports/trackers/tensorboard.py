"""TensorBoard: event files in FOLDER/STUDY/RUN, the configuration as hyperparameters.

Values are float32: TensorBoard shows nothing of scalars in float64, but for its slower loader.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leadline.reports.trackers import VERDICT_RUN, Points, TrackedRun, Tracker, register
from leadline.reports.trackers.marks import find_marks, write_mark

EVENTS = "events.out.tfevents.{moment:010d}.leadline"
SPECIFICATION = "specification"


@register
class TensorBoard(Tracker):
    """Event files, one folder for each run."""

    name = "tensorboard"
    package = "tensorboard"
    module = "tensorboard"
    next = "tensorboard --logdir {folder}"

    def __init__(self, folder: Path, study: str) -> None:
        self._place = folder / study
        self._files: dict[str, EventFile] = {}
        super().__init__(folder, study)

    def read_known(self) -> dict[str, str]:
        """Return what the marks in the study's folder say."""
        folders = self._place.iterdir() if self._place.is_dir() else ()
        found = find_marks(folders, self.study)
        self._folders = {id_: folder for id_, (folder, _) in found.items()}
        return {id_: digest for id_, (_, digest) in found.items()}

    def remove(self, run: str) -> None:
        """Remove the run's folder."""
        if (file := self._files.pop(run, None)) is not None:
            file.close()
        shutil.rmtree(self._folders.pop(run))

    def begin(self, run: TrackedRun) -> None:
        """Write the configuration as hyperparameters, and the specification as text."""
        self._folders[run.id] = folder = self._place / run.file_name
        shutil.rmtree(folder, ignore_errors=True)  # begun, but killed before it was marked
        folder.mkdir(parents=True)
        write_mark(folder, self.study, run.id)
        file = self._files[run.id] = EventFile(folder)
        file.write_start(run.settings, run.id)
        file.write_text(SPECIFICATION, json.dumps(run.config, indent=2, default=str))

    def add(self, run: TrackedRun, points: Points) -> None:
        """Write scalars, with the epoch as their step."""
        for epoch, values in points.items():
            self._files[run.id].write_scalars(epoch, values)

    def end(self, run: TrackedRun) -> None:
        """Write how the run ended."""
        file = self._files.pop(run.id)
        file.write_end(run.state)
        file.close()
        write_mark(self._folders[run.id], self.study, run.id, run.digest)

    def close(self) -> None:
        """Say of runs that go on that they do."""
        for file in self._files.values():
            file.write_end("running")
            file.close()
        self._files.clear()

    def write_verdict(self, text: str, digest: str) -> None:
        """Write the verdict as text."""
        folder = self._place / VERDICT_RUN
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file = EventFile(folder)
        file.write_text("verdict", text)
        file.close()
        write_mark(folder, self.study, VERDICT_RUN, digest)


class EventFile:
    """An event file, written at once."""

    def __init__(self, folder: Path) -> None:
        """Create a file in a folder."""
        from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._writer = RecordWriter((folder / EVENTS.format(moment=int(time.time()))).open("wb"))
        self._write(Event(file_version="brain.Event:2", source_metadata=SourceMetadata(writer="leadline")))

    def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write named values of a step, as float32."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=scalars)))

    def write_text(self, name: str, text: str) -> None:
        """Write a text, which TensorBoard shows as it is."""
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.metadata import create_summary_metadata

        metadata = create_summary_metadata(display_name="", description="")
        content = f"```\n{text}\n```".encode()
        tensor = TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=TensorShapeProto())
        self._write_value(name, metadata, tensor)

    def write_start(self, settings: dict[str, Any], group: str) -> None:
        """Write the hyperparameters with which a run starts."""
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        info = SessionStartInfo(group_name=group, start_time_secs=time.time())
        for name, value in settings.items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                info.hparams[name].number_value = value
            elif value is not None:
                info.hparams[name].string_value = str(value)
        self._write_hparams(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))

    def write_end(self, state: str) -> None:
        """Write how a run ended: finished, running, or another word for a failure."""
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        status = {"finished": "STATUS_SUCCESS", "running": "STATUS_RUNNING"}.get(state, "STATUS_FAILURE")
        info = SessionEndInfo(status=Status.Value(status), end_time_secs=time.time())
        self._write_hparams(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write_hparams(self, tag: str, data: Any) -> None:
        from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

        self._write_value(tag, create_summary_metadata(data), NULL_TENSOR)

    def _write_value(self, tag: str, metadata: Any, tensor: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(Event(summary=Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()
