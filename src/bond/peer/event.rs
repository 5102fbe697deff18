//! What a peer tells its driver.

use crate::keys::PublicKey;
use crate::link::LinkState;
use crate::{LinkId, PeerId};

/// Something that the driver is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first link of a peer carries traffic.
    PeerUp {
        /// Who.
        peer: PeerId,
    },
    /// No link of a peer carries traffic any more.
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A link changed.
    LinkState {
        /// Whose.
        peer: PeerId,
        /// Which.
        link: LinkId,
        /// Its name.
        name: String,
        /// Its state now.
        state: LinkState,
        /// Why; empty when it is up.
        reason: String,
    },
    /// The largest inner packet has another size now.
    TunnelMtu {
        /// For whom.
        peer: PeerId,
        /// Bytes.
        mtu: u16,
    },
    /// An unknown key has proved the secret of an invitation, which is used up by that.
    Introduced {
        /// The number of the invitation.
        invitation: u32,
        /// Whose key it is now.
        public_key: PublicKey,
    },
    /// A handshake that was authentic so far came to nothing.
    HandshakeFailed {
        /// With whom, where it is known.
        peer: Option<PeerId>,
        /// Why.
        reason: String,
    },
}
