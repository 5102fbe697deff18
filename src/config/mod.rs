//! `/etc/config/bonding`: from text to typed, checked options.
