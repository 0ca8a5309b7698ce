//! Who may do what, door by door: a real relay over simulated connections, and tokens as others make them.

mod access {
    mod cookies;
    mod doors;
    mod life;
    mod rates;
    pub mod rig;
    mod vectors;
}
