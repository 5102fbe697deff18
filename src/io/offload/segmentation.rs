//! Takes super-packets of the kernel apart, and completes checksums.

use super::checksum::{fold, pseudo_header, sum};
use super::{CWR, FIN, Header, PSH, Segmentation};

/// A packet of the kernel's that contradicts itself, or whose segments would not fit the caller's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet and its offload header contradict each other")]
pub struct Malformed;

/// The segments of a packet that was read from a TUN device, one after the other.
///
/// A packet that is no super-packet has one segment: itself.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    header: Header,
    /// Where TCP's or UDP's header begins.
    transport: usize,
    /// Where the payload begins.
    payload: usize,
    /// Bytes of payload that were given out.
    done: usize,
    size: usize,
    count: u16,
    over: bool,
}

impl<'a> Segments<'a> {
    /// The segments of `packet`, none of which is longer than `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: the header's offsets lie outside of the packet or do not belong to its protocol.
    pub fn new(header: Header, packet: &'a [u8], limit: usize) -> Result<Segments<'a>, Malformed> {
        let mut segments = Segments {
            packet,
            header,
            transport: 0,
            payload: 0,
            done: 0,
            size: packet.len(),
            count: 0,
            over: false,
        };
        if let Some((start, offset)) = header.checksum {
            segments.transport = usize::from(start);
            // The field, and the sum, lie within the packet.
            packet
                .get(segments.transport + usize::from(offset)..)
                .and_then(|p| p.get(..2))
                .ok_or(Malformed)?;
        }
        let Some(kind) = header.segmentation else {
            return if packet.is_empty() || packet.len() > limit { Err(Malformed) } else { Ok(segments) };
        };
        let (_, offset) = header.checksum.ok_or(Malformed)?;
        let transport = packet.get(segments.transport..).ok_or(Malformed)?;
        let transport_len = match kind {
            Segmentation::TcpV4 | Segmentation::TcpV6 => {
                let len = usize::from(transport.get(12).ok_or(Malformed)? >> 4) * 4;
                if len < 20 || offset != 16 {
                    return Err(Malformed);
                }
                len
            }
            Segmentation::Udp if offset == 6 => 8,
            Segmentation::Udp => return Err(Malformed),
        };
        let is_v4 = match (packet.first().map(|first| first >> 4), kind) {
            (Some(4), Segmentation::TcpV4 | Segmentation::Udp) => true,
            (Some(6), Segmentation::TcpV6 | Segmentation::Udp) => false,
            _ => return Err(Malformed),
        };
        let network = if is_v4 { usize::from(packet.first().ok_or(Malformed)? & 15) * 4 } else { 40 };
        // IPv6 may have extension headers in between, which all segments share.
        let starts_right = if is_v4 { segments.transport == network } else { segments.transport >= network };
        segments.payload = segments.transport + transport_len;
        segments.size = usize::from(header.segment_size);
        let fits = segments.size > 0 && segments.payload + segments.size <= limit;
        let is_whole = segments.payload < packet.len() && transport.len() <= usize::from(u16::MAX);
        if network < 20 || !starts_right || !fits || !is_whole {
            return Err(Malformed);
        }
        Ok(segments)
    }

    /// Writes the next segment, with all its checksums, into `out`, and returns its length; `None` after the last.
    ///
    /// `out` holds at least the limit that [`Segments::new`] was given.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.over {
            return None;
        }
        if self.header.segmentation.is_none() {
            self.over = true;
            let out = out.get_mut(..self.packet.len())?;
            out.copy_from_slice(self.packet);
            if let Some((start, offset)) = self.header.checksum {
                complete(out, usize::from(start), usize::from(offset))?;
            }
            return Some(out.len());
        }
        let (headers, payload) = self.packet.split_at_checked(self.payload)?;
        let rest = payload.get(self.done..)?;
        let part = rest.get(..self.size).unwrap_or(rest);
        let len = headers.len() + part.len();
        let out = out.get_mut(..len)?;
        let (out_headers, out_payload) = out.split_at_mut_checked(headers.len())?;
        out_headers.copy_from_slice(headers);
        out_payload.copy_from_slice(part);
        let is_last = part.len() == rest.len();
        self.patch(out_headers, part.len(), is_last)?;
        let offset = usize::from(self.header.checksum?.1);
        complete(out, self.transport, offset)?;
        self.done += part.len();
        self.count = self.count.wrapping_add(1);
        self.over = is_last;
        Some(len)
    }

    /// Gives the copied headers what differs from segment to segment; the transport checksum is left partial.
    fn patch(&self, headers: &mut [u8], payload: usize, is_last: bool) -> Option<()> {
        let len = headers.len() + payload;
        let (network, transport) = headers.split_at_mut_checked(self.transport)?;
        let transport_len = transport.len() + payload;
        if network.first()? >> 4 == 4 {
            network.get_mut(2..4)?.copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes(*network.get(4..6)?.first_chunk()?).wrapping_add(self.count);
            network.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
            network.get_mut(10..12)?.fill(0);
            let checksum = !fold(sum(network, 0));
            network.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
        } else {
            network.get_mut(4..6)?.copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
        let at = match self.header.segmentation? {
            Segmentation::TcpV4 | Segmentation::TcpV6 => {
                let sequence = transport.get_mut(4..8)?;
                let first = u32::from_be_bytes(*sequence.first_chunk()?);
                sequence.copy_from_slice(&first.wrapping_add(self.done as u32).to_be_bytes());
                let flags = transport.get_mut(13)?;
                if self.done > 0 {
                    *flags &= !CWR;
                }
                if !is_last {
                    *flags &= !(FIN | PSH);
                }
                16
            }
            Segmentation::Udp => {
                transport.get_mut(4..6)?.copy_from_slice(&(transport_len as u16).to_be_bytes());
                6
            }
        };
        // The field holds the pseudo-header's sum, with the length of the whole. Its addresses may not be those of the
        // IP header (routing headers), so only the length is exchanged in it.
        let whole = (self.packet.len() - self.transport) as u16;
        let field = transport.get_mut(at..at + 2)?;
        let partial = u32::from(u16::from_be_bytes(*field.first_chunk()?));
        let exchanged = fold(partial + u32::from(!whole) + transport_len as u32);
        field.copy_from_slice(&exchanged.to_be_bytes());
        Some(())
    }
}

/// Computes the checksum from `start` to the end, which includes what the field holds, and enters it.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let checksum = !fold(sum(packet.get(start..)?, 0));
    // Zero would mean "none" to UDP (RFC 768), whose field stands here.
    let checksum = if checksum == 0 && offset == 6 { 0xffff } else { checksum };
    packet.get_mut(start + offset..start + offset + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Enters the pseudo-header's sum, from which the kernel completes the checksum.
pub(super) fn make_partial(packet: &mut [u8], transport: usize, offset: usize, protocol: u8) -> Option<()> {
    let is_v4 = packet.first()? >> 4 == 4;
    let addresses = if is_v4 { packet.get(12..20)? } else { packet.get(8..40)? };
    let partial = fold(pseudo_header(addresses, protocol, packet.len() - transport));
    packet.get_mut(transport + offset..transport + offset + 2)?.copy_from_slice(&partial.to_be_bytes());
    Some(())
}
