"""Tags in a folder of TensorBoard event files."""

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_events(folder: Path) -> set[str]:
    """Reads the records: 8 bytes of length, 4 of checksum, the event, 4 of checksum."""
    tags = set()
    for path in folder.glob("events*"):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            tags |= {value.tag for value in event.summary.value}
            content = content[16 + length :]
    return {tag.removesuffix("/audio") for tag in tags}
