//! Who may do what, door by door: a real relay over simulated connections, and tokens as others make them.

mod access {
    pub mod rig;
    mod doors;
    mod life;
}
