//! A table from 16-byte keys to numbers: `rte_hash`, with CRC32 as its hash and bulk lookup.
//!
//! One owner writes and reads; nothing in the table is shared between threads (no extra flags).

use std::ffi::c_void;
use std::ptr::NonNull;

use dpdk_sys::rte_hash;

use crate::eal::{Eal, control};
use crate::error::{Error, Result, c_string, check};

/// A key: 16 bytes, aligned as the hash and the comparison read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(16))]
pub struct HashKey(pub [u8; 16]);

/// `rte_hash` over [`HashKey`]s.
#[derive(Debug)]
pub struct HashTable {
    raw: NonNull<rte_hash>,
    bytes: u64,
    _eal: Eal,
}

// SAFETY: made without extra flags, the table has no per-thread parts; only its owner uses it.
unsafe impl Send for HashTable {}

/// Longest name: the table's ring puts a prefix in front of it.
const NAME: usize = 24;

impl HashTable {
    /// Most keys of one lookup (`RTE_HASH_LOOKUP_BULK_MAX`).
    pub const BULK: usize = 64;

    /// An empty table for `entries` keys, 8 to 2^30, with all its memory. The name is unique in the process
    /// and at most 24 bytes. `seed` is where the CRC begins.
    ///
    /// # Errors
    /// The name is too long or taken, `entries` is out of range, or DPDK's memory does not suffice.
    pub fn new(eal: &Eal, name: &str, entries: u32, seed: u32) -> Result<Self> {
        if name.len() > NAME {
            let why = format!("{name:?} has {} bytes; use at most {NAME}", name.len());
            return Err(Error::argument("hash table name", why));
        }
        let c_name = c_string(name, "hash table name")?;
        let _one_at_a_time = control();
        // SAFETY: the EAL runs.
        let before = unsafe { dpdk_sys::shim_heap_bytes() };
        let key = size_of::<HashKey>() as u32; // 16
        // SAFETY: the EAL runs, and the name lives until the call returns, which copies it.
        let raw = unsafe { dpdk_sys::shim_hash_create(c_name.as_ptr(), entries, key, seed, -1) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(Error::last(format!("making hash table {name:?} for {entries} keys")));
        };
        // SAFETY: the EAL runs.
        let after = unsafe { dpdk_sys::shim_heap_bytes() };
        Ok(Self { raw, bytes: after.saturating_sub(before), _eal: eal.clone() })
    }

    /// Adds a key, or gives it another value.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn insert(&mut self, key: &HashKey, value: usize) -> Result<()> {
        let key: *const HashKey = key;
        // The value stands where a pointer would; nobody follows it.
        let value = std::ptr::without_provenance_mut::<c_void>(value);
        // SAFETY: the table is live and has no other user; the call copies the key's 16 bytes.
        let ret = unsafe { dpdk_sys::rte_hash_add_key_data(self.raw.as_ptr(), key.cast(), value) };
        check(ret, || "adding a key to a hash table".to_owned())
    }

    /// Looks `N` keys up at once, 64 at most. Bit i of the result: key i is there, and `values[i]` is its
    /// value; the other values stay as they are.
    #[inline]
    pub fn lookup<const N: usize>(&self, keys: &[HashKey; N], values: &mut [usize; N]) -> u64 {
        const { assert!(N >= 1 && N <= Self::BULK) };
        let mut pointers: [*const c_void; N] =
            keys.each_ref().map(|k| std::ptr::from_ref(k).cast());
        let mut hits = 0;
        // SAFETY: the table is live and nobody writes to it (`insert` needs it mutably, and it is not
        // Sync); N is from 1 to 64; there are N pointers to keys of 16 bytes and room for N values of
        // the size of a pointer. With these arguments the call does not fail.
        unsafe {
            dpdk_sys::rte_hash_lookup_bulk_data(
                self.raw.as_ptr(),
                pointers.as_mut_ptr(),
                N as u32,
                &raw mut hits,
                values.as_mut_ptr().cast(),
            );
        }
        hits
    }

    /// Keys in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: the table is live.
        let n = unsafe { dpdk_sys::rte_hash_count(self.raw.as_ptr()) };
        usize::try_from(n).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the table, bytes: by how much DPDK's heap grew when it was made.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for HashTable {
    fn drop(&mut self) {
        let _one_at_a_time = control();
        // SAFETY: the table is live, and this was its only handle.
        unsafe { dpdk_sys::rte_hash_free(self.raw.as_ptr()) };
    }
}
