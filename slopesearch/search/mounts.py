"""Whether a folder is on a network file system: told by the mount table of Linux, and nowhere else."""

import re
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")  # see proc_pid_mountinfo(5)

# Types of file systems that several machines mount at once. What a container or a virtual machine has in
# place of a local disk (overlay, 9p, virtiofs, most of FUSE) is none of them.
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "davfs", "fuse.davfs2"),
    *("lustre", "gpfs", "ceph", "beegfs", "glusterfs", "panfs", "pvfs2", "orangefs", "wekafs"),
    *("gfs2", "ocfs2"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.beegfs", "fuse.mfs"),
    *("fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.blobfuse2"),
}


def network_mount(folder: Path) -> tuple[str, Path] | None:
    """The type and the mount point of the network file system that holds a folder; None on a local disk.

    A folder that does not exist is held where it would be made. None also where there is no such table.
    """
    try:
        lines = TABLE.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    folder = folder.resolve()
    found: tuple[str, Path] | None = None
    for line in lines:
        left, _, right = line.partition(" - ")
        point, kind = Path(_unescaped(left.split(" ")[4])), right.split(" ")[0]
        # Of two mounts at one point the later hides the earlier.
        if folder.is_relative_to(point) and (found is None or len(point.parts) >= len(found[1].parts)):
            found = kind, point
    return found if found is not None and found[0] in NETWORK else None


def _unescaped(text: str) -> str:
    r"""A path of the table, in which a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
