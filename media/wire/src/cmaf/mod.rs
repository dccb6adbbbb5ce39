//! CMAF: initialisation segments and parts (ISO/IEC 23000-19, ISO/IEC 14496-12).
