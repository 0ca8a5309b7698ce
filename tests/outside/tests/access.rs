//! Who may do what, door by door: a real relay over simulated connections, and tokens as others make them.

mod access {
    mod attacks;
    mod cookies;
    mod doors;
    mod life;
    mod own;
    mod rates;
    mod revoke;
    pub mod rig;
    mod vectors;
}
