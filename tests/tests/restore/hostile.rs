//! Hostile and unlucky restores: what is said, and the key directories exactly as before.
