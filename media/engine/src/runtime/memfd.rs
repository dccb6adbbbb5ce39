//! Stores bytes in memory files (`memfd_create(2)`). They are readable as ordinary [`Bytes`], and
//! the kernel can send them to a socket without copying them (`sendfile(2)`). For data that is
//! produced once and sent to many clients.
//!
//! A file is written once and then sealed, so its bytes cannot change while they are read or queued
//! in a socket. It is closed when the last [`Bytes`] of it is dropped. Must not know what is stored
//! or which code sends it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// All mapped files, by the address of their first byte.
static MAPPED_FILES: RwLock<BTreeMap<usize, MappedFile>> = RwLock::new(BTreeMap::new());

#[derive(Debug)]
struct MappedFile {
    len: usize,
    file: Arc<File>,
}

/// The file and the offset at which some bytes are stored.
#[derive(Debug)]
pub struct MemfdRange {
    file: Arc<File>,
    /// Offset of the first byte in the file.
    pub offset: u64,
}

impl AsFd for MemfdRange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Copies `pieces` one after another into a new file. The file descriptor stays open until the
/// returned bytes and all their slices are dropped.
///
/// # Errors
/// If memory or file descriptors are exhausted, and if `pieces` holds no bytes.
pub fn store(pieces: &[Bytes]) -> io::Result<Bytes> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("headwater", flags)?);
    pieces.iter().try_for_each(|piece| file.write_all(piece))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    let mapping = Mapping::new(&file, pieces.iter().map(Bytes::len).sum())?;
    let mapped = MappedFile { len: mapping.len, file: Arc::new(file) };
    MAPPED_FILES.write().unwrap_or_else(PoisonError::into_inner).insert(mapping.start as usize, mapped);
    Ok(Bytes::from_owner(mapping))
}

/// Returns the file and offset of bytes that [`store`] returned, or of a slice of them; `None` for
/// all other bytes.
pub fn find(bytes: &[u8]) -> Option<MemfdRange> {
    let start = bytes.as_ptr() as usize;
    let files = MAPPED_FILES.read().unwrap_or_else(PoisonError::into_inner);
    let (first, mapped) = files.range(..=start).next_back()?;
    let offset = start - first;
    let is_inside = offset + bytes.len() <= mapped.len;
    is_inside.then(|| MemfdRange { file: Arc::clone(&mapped.file), offset: offset as u64 })
}

/// A read-only mapping of a sealed file.
#[derive(Debug)]
struct Mapping {
    start: *const u8,
    len: usize,
}

// SAFETY: the memory cannot change: it is mapped read-only, and the file behind it is sealed.
#[expect(unsafe_code, reason = "a pointer to memory that never changes")]
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: with a null address hint, the kernel chooses an unused address range.
        #[expect(unsafe_code, reason = "there is no safe way to map a file")]
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        Ok(Self { start: start.cast(), len })
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped with this length until `drop`; the seals prevent changes of length and
        // content.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            std::slice::from_raw_parts(self.start, self.len)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Remove it from the table first: another mapping may get this address after munmap.
        MAPPED_FILES.write().unwrap_or_else(PoisonError::into_inner).remove(&(self.start as usize));
        // SAFETY: mapped by `new` with this length; no reference to the bytes exists any more.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { rustix::mm::munmap(self.start.cast_mut().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn stored_bytes_are_readable_in_memory_and_in_the_file() {
        let pieces = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 100_000])];
        let bytes = store(&pieces).unwrap();
        assert_eq!(bytes, pieces.concat());
        let part = bytes.slice(2..50_000);
        let range = find(&part).unwrap();
        assert_eq!(range.offset, 2);
        let mut read = vec![0; part.len()];
        range.file.read_exact_at(&mut read, range.offset).unwrap();
        assert_eq!(read, part);
    }

    #[test]
    fn other_bytes_have_no_file_and_a_file_closes_with_its_last_slice() {
        let bytes = store(&[Bytes::from_static(b"some bytes")]).unwrap();
        assert!(find(b"some bytes").is_none());
        let (last, start) = (bytes.slice(9..), bytes.as_ptr() as usize);
        drop(bytes);
        assert!(find(&last).is_some());
        drop(last);
        assert!(!MAPPED_FILES.read().unwrap().contains_key(&start));
    }

    #[test]
    fn stored_file_cannot_change_and_an_empty_one_is_refused() {
        let bytes = store(&[Bytes::from_static(b"some bytes")]).unwrap();
        let range = find(&bytes).unwrap();
        assert!((&*range.file).write_all(b"x").is_err());
        assert!(range.file.set_len(3).is_err());
        assert_eq!((&*range.file).read(&mut [0; 4]).unwrap(), 0, "the file position is at the end");
        assert!(store(&[]).is_err());
    }
}
