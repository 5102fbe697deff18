//! Packets in pooled buffers.
//!
//! A packet that waits in a queue, in flight or in the resequencer lives in a [`Packet`]. Buffers come from a
//! [`Pool`] that keeps a bounded number of them, so that a packet in steady state costs no allocation.

use std::ops::Deref;

/// Bytes that every buffer can hold: a full Ethernet payload and some room.
pub const BUFFER_SIZE: usize = 2048;

/// One IP packet in a buffer of its own.
#[derive(Default)]
pub struct Packet {
    /// Whatever was in the buffer stays there, so that nothing is cleared for each packet.
    data: Vec<u8>,
    len: usize,
}

impl Packet {
    /// The whole buffer, [`BUFFER_SIZE`] bytes, to read a packet into; follow with [`Packet::set_len`].
    pub fn spare_mut(&mut self) -> &mut [u8] {
        if self.data.len() < BUFFER_SIZE {
            self.data.resize(BUFFER_SIZE, 0);
        }
        &mut self.data
    }

    /// Its length, which is asked for much oftener than its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Declares the first `len` bytes of the buffer to be the packet; at most [`BUFFER_SIZE`].
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.data.len());
    }

    /// Makes the packet a copy of `bytes`.
    pub fn copy_from(&mut self, bytes: &[u8]) {
        self.len = 0;
        self.append(bytes);
    }

    /// Appends `bytes` to the packet.
    pub fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if self.data.len() < end {
            self.data.resize(end.max(BUFFER_SIZE), 0);
        }
        self.data[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// The packet's bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }
}

impl Deref for Packet {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

/// A bounded stock of buffers.
pub struct Pool {
    free: Vec<Packet>,
    limit: usize,
}

impl Pool {
    /// A pool that keeps at most `limit` unused buffers.
    pub fn new(limit: usize) -> Self {
        Pool { free: Vec::new(), limit }
    }

    /// An empty packet.
    pub fn take(&mut self) -> Packet {
        self.free.pop().unwrap_or_default()
    }

    /// Takes a buffer back; frees it when the pool is full.
    pub fn put(&mut self, mut packet: Packet) {
        if self.free.len() < self.limit && packet.data.len() >= BUFFER_SIZE {
            packet.len = 0;
            self.free.push(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_reuses_buffers_up_to_its_limit() {
        let mut pool = Pool::new(1);
        let (mut a, b) = (pool.take(), pool.take());
        a.copy_from(&[1, 2, 3]);
        pool.put(a);
        pool.put(b);
        assert_eq!(pool.free.len(), 1);
        assert!(pool.take().is_empty());
    }
}
