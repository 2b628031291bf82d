"""The door: pyfuse3's operations, delegated to nodes and handles.

It translates numbers to nodes and attributes to pyfuse3's; ``boundary`` translates errors, since only a FUSEError may
leave an operation.
"""

import errno
import itertools
import os
import stat
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from synosfs.errors import SynosError
from synosfs.fs.boundary import changes, changes_by_name, leave_reason, looks, looks_by_name, opens, told_of
from synosfs.fs.entries import Listing, entry_attributes
from synosfs.fs.inodes import ROOT, Inodes
from synosfs.fs.interrupts import shown_inode
from synosfs.fs.node import FOREVER, Handle, Node, Who, writes
from synosfs.fs.pollers import Pollers
from synosfs.fs.receive import Receiver
from synosfs.ipc.change import Change
from synosfs.kernel import Kernel
from synosfs.slices import Slice

#: rename(2): the only flag that is honoured.
_RENAME_NOREPLACE = 1

#: Names longer than this are refused by every file system here (NAME_MAX).
_NAME_MAX = 255

#: The name spaces of extended attributes that there are, but for ``user.`` (xattr(7)).
_NAME_SPACES = (b"security.", b"system.", b"trusted.")


class Operations(pyfuse3.Operations):
    """One mount."""

    enable_acl = False
    supports_dot_lookup = False

    def __init__(self, root: Node, receiver: Receiver, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.receiver = receiver
        self.inodes = Inodes(root)
        self._handles: dict[int, Handle] = {}
        self._pollers = Pollers(kernel.watches)
        self._directories: dict[int, Listing] = {}
        self._numbers = itertools.count(1)  # of what is open

    def statistics(self) -> list[tuple[str, object]]:
        """The door's own figures, by the names that ``stats`` gives them."""
        receive, inodes, pollers = self.receiver.statistics(), self.inodes.statistics(), self._pollers.statistics()
        return [
            ("fast_receive", f"off: {receive.off}" if receive.off else "on"),
            ("requests", receive.requests),
            ("interrupts", receive.unhandled),
            ("inodes", inodes.numbers),
            ("look_ups", inodes.look_ups),
            ("opens_too_late", inodes.refused),
            ("opens_in_line", inodes.waiting),
            ("opens_overdue", inodes.overdue),
            ("polled_files", pollers.waiting),
            ("polls", pollers.asked),
        ]

    def close(self) -> None:
        """Let nobody wait here who is not parked."""
        self.inodes.close()

    # --- names ---

    @looks
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        directory = self.inodes[parent]
        text = _text(name)
        node = directory if text == "." else directory.lookup(text, ctx)
        entry = self._entry(node, ctx)
        entry.entry_timeout = node.entry_timeout
        return entry

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        # No _boundary: nothing here can fail, and pyfuse3 has no answer to give if it did.
        self.receiver.handled += 1
        self.inodes.forget(inodes)

    @changes
    async def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        await self.inodes[parent].unlink(_text(name), ctx)

    @changes
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: RequestContext
    ) -> None:
        if flags & ~_RENAME_NOREPLACE:
            raise SynosError(errno.EINVAL, "names cannot be exchanged here")
        if parent != new_parent:
            raise SynosError(errno.EXDEV, "a thing keeps to its directory")
        # The kernel, which looked both names up, has seen to RENAME_NOREPLACE.
        await self.inodes[parent].rename(_text(name), _text(new_name), ctx)

    @changes
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        raise SynosError(errno.EPERM, "no directory can be made here")

    @changes
    def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        raise SynosError(errno.EPERM, "the directories here stay")

    @changes
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        raise SynosError(errno.EPERM, "no link can be made here")

    @changes
    def link(self, inode: int, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        raise SynosError(errno.EPERM, "no link can be made here")

    @looks
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return os.fsencode(self.inodes[inode].readlink(ctx))

    # --- attributes ---

    @looks_by_name
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        node = self.inodes[inode]
        return entry_attributes(shown_inode(inode), node, node.attributes(ctx))

    @changes_by_name
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        node = self.inodes[inode]
        node.attributes(ctx)  # ENOENT when it is gone: not every host call that changes something says so
        change = Change(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            # truncate(2) asks for a new mtime too, which is the thing's own affair.
            atime_ns=attr.st_atime_ns if fields.update_atime and not fields.update_size else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime and not fields.update_size else None,
        )
        await node.change(change, ctx)
        return entry_attributes(shown_inode(inode), node, node.attributes(ctx))

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if name.startswith(b"user."):
            value: bytes = await self._user_xattr(inode, name, ctx)
            return value
        # ls(1) asks each file for a label and an ACL, which none has: the shortest way to say so.
        self.receiver.handled += 1
        raise FUSEError(errno.ENODATA if name.startswith(_NAME_SPACES) else errno.ENOTSUP)

    @looks_by_name
    def _user_xattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        value = self.inodes[inode].xattrs(ctx).get(os.fsdecode(name).removeprefix("user."))
        if value is None:
            raise SynosError(errno.ENODATA)
        return value.encode()

    @looks_by_name
    def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        return [f"user.{name}".encode() for name in self.inodes[inode].xattrs(ctx)]

    @changes
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        raise _no_xattr(name)

    @changes
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        raise _no_xattr(name)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        self.receiver.handled += 1
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_files = len(self.inodes)
        data.f_namemax = _NAME_MAX
        return data

    # --- open files ---

    @opens
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return await self._open(self.inodes[inode], inode, flags, ctx)

    @changes
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        node = await self.inodes[parent].create(_text(name), mode, ctx)
        entry = self._entry(node, ctx)
        try:
            return await self._open(node, entry.st_ino, flags, ctx), entry
        except BaseException:
            self.inodes.forget([(entry.st_ino, 1)])
            raise

    @changes
    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        directory = self.inodes[parent]
        if stat.S_ISREG(mode):
            return self._entry(await directory.create(_text(name), mode, ctx), ctx)
        if stat.S_ISFIFO(mode):
            return self._entry(await directory.mkfifo(_text(name), stat.S_IMODE(mode), ctx), ctx)
        raise SynosError(errno.EPERM, "only FIFOs, and objects with a key, can be made here")

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        # read, write and release may wait: what _boundary does, without another frame on the hot path.
        self.receiver.handled += 1
        try:
            return await self._handles[fh].read(offset, size)
        except Exception as error:
            raise self._failed("read", fh, error) from None

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        self.receiver.handled += 1
        try:
            return await self._handles[fh].write(offset, data)
        except Exception as error:
            raise self._failed("write", fh, error) from None

    def _failed(self, operation: str, fh: int, error: Exception) -> FUSEError:
        told = told_of(operation, error)
        if told.errno == errno.EAGAIN:
            self._pollers.go_on(fh)  # and that is what a loop over poll(2) ends with: no reason is left for it
        elif (who := self._handles[fh].who) is not None:
            leave_reason(self.kernel, who, error, of_program=True)
        return told

    @looks
    def flush(self, fh: int) -> None:
        # The kernel remembers this answer and asks no more: closing costs one request less, and nothing here waits for
        # it.
        raise SynosError(errno.ENOSYS)

    @looks
    def fsync(self, fh: int, datasync: bool) -> None:
        """Nothing is ever held back."""

    async def release(self, fh: int) -> None:
        self.receiver.handled += 1
        try:
            self._pollers.forget(fh)
            handle = self._handles.pop(fh)
            if handle.account is not None:
                handle.account.give_back("sessions")
                handle.account.give_back("memory", handle.held)
            await self._closed(handle)
        except Exception as error:
            raise told_of("release", error) from None

    @looks
    async def poll(self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: RequestContext) -> int:
        notify = None if poll_handle is None else poll_handle.notify
        return await self._pollers.poll(fh, self._handles[fh].source(), notify)

    # --- directories ---

    @looks_by_name
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        directory = self.inodes[inode]
        entries = await directory.listed(ctx)
        account = self.kernel.accounts.of(ctx.uid)
        account.charge("sessions")
        number = next(self._numbers)
        self._directories[number] = Listing(directory, ctx, account, entries)
        return number

    @looks
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._directories[fh]
        is_over = Slice().is_over
        keep = listing.directory.keeps_names
        for position, (name, node) in listing.since(start_id):
            try:
                entry = self._entry(node, listing.who, listed=keep)
                # Who lists names is about to look at what is there: ls(1) asks three times for each.
                entry.entry_timeout = FOREVER if keep else 0.0
            except SynosError as error:
                if error.errno != errno.ESTALE:
                    continue  # it went since the directory was opened
                # Who lists sees it otherwise than others do, and that is not kept.
                entry = self._entry(listing.directory.lookup(name, listing.who), listing.who)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, position + 1):
                self.inodes.forget([(entry.st_ino, 1)])
                return
            if is_over():
                return  # it asks again

    @looks
    def releasedir(self, fh: int) -> None:
        self._directories.pop(fh).account.give_back("sessions")

    # --- helpers ---

    def _entry(self, node: Node, ctx: Who, *, listed: bool = False) -> EntryAttributes:
        """A node's attributes for the kernel, which holds one more reference from now on, and not yet the name."""
        attributes = node.attributes(ctx)
        inode = self.inodes.refer_listed(node) if listed else self.inodes.refer(node, ctx.pid)
        return entry_attributes(inode, node, attributes)

    async def _open(self, node: Node, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        account = self.kernel.accounts.of(ctx.uid)
        account.charge("sessions")
        try:
            handle = await self._opened(node, inode, flags, ctx)
            try:
                account.charge("memory", handle.held)
            except SynosError:
                await self._closed(handle)
                raise
        except BaseException:
            account.give_back("sessions")
            raise
        handle.account = account
        number = next(self._numbers)
        self._handles[number] = handle
        # direct_io: a read or write of the caller is a read or write of ours, of the same size, at once.
        return FileInfo(fh=number, direct_io=True, keep_cache=False)

    async def _opened(self, node: Node, inode: int, flags: int, ctx: RequestContext) -> Handle:
        written = inode if writes(flags) else None
        if written is not None:
            await self.inodes.open_in_turn(written, ctx.pid, ctx.uid)
        try:
            handle = await node.open(flags, ctx, inode)
        except BaseException:
            if written is not None:
                self.inodes.close_for_writing(written)
            raise
        if written is not None:
            handle.written = written
            handle.who = ctx if handle.leaves_reasons else None
        return handle

    async def _closed(self, handle: Handle) -> None:
        if handle.written is not None:
            self.inodes.close_for_writing(handle.written)
        await handle.close()


def _no_xattr(name: bytes) -> SynosError:
    if not name.startswith((b"user.", *_NAME_SPACES)):
        return SynosError(errno.ENOTSUP, "attributes are named user.… here")
    return SynosError(errno.EPERM, "extended attributes here are for reading")


def _text(name: bytes) -> str:
    """A name as it came. ENAMETOOLONG: the kernel's own limit for this kind of mount is longer (FUSE_NAME_MAX)."""
    if len(name) > _NAME_MAX:
        raise SynosError(errno.ENAMETOOLONG, f"a name has up to {_NAME_MAX} bytes")
    return os.fsdecode(name)


assert ROOT == pyfuse3.ROOT_INODE
