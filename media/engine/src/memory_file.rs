//! Bytes in files of the kernel's memory: whoever has them reads them as any others, and the kernel can send them to a
//! socket without copying them (`sendfile(2)`). For what is made once and sent to many.
//!
//! A file is written once, sealed and never written again, so the bytes do not change while they are read or are still on
//! their way. It goes with the last of them. Must not know what is stored, nor who sends it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// All files, by the address their bytes begin at.
static FILES: RwLock<BTreeMap<usize, Stored>> = RwLock::new(BTreeMap::new());

#[derive(Debug)]
struct Stored {
    len: usize,
    file: Arc<File>,
}

/// Where in which file some bytes lie.
#[derive(Debug)]
pub struct Place {
    file: Arc<File>,
    /// Bytes before them.
    pub offset: u64,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Copies `pieces` one after another into a new file. The file's descriptor is in use as long as the bytes are.
///
/// # Errors
/// If there are no pages or no file descriptors left, and for no bytes at all.
pub fn store(pieces: &[Bytes]) -> io::Result<Bytes> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("headwater", flags)?);
    pieces.iter().try_for_each(|piece| file.write_all(piece))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    let mapping = Mapping::new(&file, pieces.iter().map(Bytes::len).sum())?;
    let stored = Stored { len: mapping.len, file: Arc::new(file) };
    FILES.write().unwrap_or_else(PoisonError::into_inner).insert(mapping.begin as usize, stored);
    Ok(Bytes::from_owner(mapping))
}

/// The place of bytes that [`store`] gave, or of a part of them; `None` for all others.
pub fn find(bytes: &[u8]) -> Option<Place> {
    let begin = bytes.as_ptr() as usize;
    let files = FILES.read().unwrap_or_else(PoisonError::into_inner);
    let (first, stored) = files.range(..=begin).next_back()?;
    let offset = begin - first;
    let inside = offset + bytes.len() <= stored.len;
    inside.then(|| Place { file: Arc::clone(&stored.file), offset: offset as u64 })
}

/// A sealed file's bytes in this process's memory.
#[derive(Debug)]
struct Mapping {
    begin: *const u8,
    len: usize,
}

// SAFETY: nobody can write to the memory: it is mapped for reading, and the file behind it is sealed.
#[expect(unsafe_code, reason = "a pointer to memory that never changes")]
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address where nothing is.
        #[expect(unsafe_code, reason = "there is no safe way to map a file")]
        let begin = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        Ok(Self { begin: begin.cast(), len })
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped with this length until `drop`; the file's seals keep it as long and as it is.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            std::slice::from_raw_parts(self.begin, self.len)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First out of the table: the next thing at this address may be something else.
        FILES.write().unwrap_or_else(PoisonError::into_inner).remove(&(self.begin as usize));
        // SAFETY: made by `new` with this length; nobody else can have the bytes any more.
        #[expect(unsafe_code, reason = "see above")]
        let _ = unsafe { rustix::mm::munmap(self.begin.cast_mut().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_is_stored_is_read_from_memory_and_from_its_place_in_the_file() {
        let pieces = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 100_000])];
        let bytes = store(&pieces).unwrap();
        assert_eq!(bytes, pieces.concat());
        let part = bytes.slice(2..50_000);
        let place = find(&part).unwrap();
        assert_eq!(place.offset, 2);
        let mut read = vec![0; part.len()];
        place.file.read_exact_at(&mut read, place.offset).unwrap();
        assert_eq!(read, part);
    }

    #[test]
    fn other_bytes_have_no_place_and_none_outlives_its_bytes() {
        let bytes = store(&[Bytes::from_static(b"some bytes")]).unwrap();
        assert!(find(b"some bytes").is_none());
        let (last, begin) = (bytes.slice(9..), bytes.as_ptr() as usize);
        drop(bytes);
        assert!(find(&last).is_some());
        drop(last);
        assert!(!FILES.read().unwrap().contains_key(&begin));
    }

    #[test]
    fn nobody_can_change_a_file_and_nothing_is_not_stored() {
        let bytes = store(&[Bytes::from_static(b"some bytes")]).unwrap();
        let place = find(&bytes).unwrap();
        assert!((&*place.file).write_all(b"x").is_err());
        assert!(place.file.set_len(3).is_err());
        assert_eq!((&*place.file).read(&mut [0; 4]).unwrap(), 0, "its position is at its end");
        assert!(store(&[]).is_err());
    }
}
