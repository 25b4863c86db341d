//! What the scans refuse, and the words for it.
#include <cmath>
#include <cstdint>

#include "checks.h"
#include "vim_plugins/contract.h"
#include "vim_plugins/validate.h"

namespace vim_plugins {
namespace {

bool is_flag(std::int32_t value) {
    return value == 0 || value == 1;
}

const char* check_states(std::int32_t states) {
    if (states < 1) {
        return "state size N is below 1";
    }
    return states > kMaxState ? "state size N is above 64" : nullptr;
}

}  // namespace

const char* validate_shape(const SelectiveScanParams& p) noexcept {
    if (const char* fault = check_sizes(p.batch, p.length, p.channels, p.type)) {
        return fault;
    }
    if (const char* fault = check_states(p.states)) {
        return fault;
    }
    if (!is_flag(p.reverse) || !is_flag(p.delta_softplus) || !is_flag(p.has_z)) {
        return "reverse, delta_softplus and has_z must be 0 or 1";
    }
    if (!columns_fit(p.b_off, p.states, p.bc_columns)) {
        return "columns [b_off, b_off + N) lie outside the rows of bc";
    }
    if (!columns_fit(p.c_off, p.states, p.bc_columns)) {
        return "columns [c_off, c_off + N) lie outside the rows of bc";
    }
    if (p.has_z == 1 && !columns_fit(p.z_off, p.channels, p.z_columns)) {
        return "columns [z_off, z_off + D) lie outside the rows of z";
    }
    return nullptr;
}

const char* validate_shape(const BiSelectiveScanParams& p) noexcept {
    if (const char* fault = check_sizes(p.batch, p.length, p.channels, p.type)) {
        return fault;
    }
    if (const char* fault = check_states(p.states)) {
        return fault;
    }
    if (!is_flag(p.delta_softplus) || !is_flag(p.low_rank)) {
        return "delta_softplus and low_rank must be 0 or 1";
    }
    if (!std::isfinite(p.scale) || p.scale == 0.0F) {
        return "scale must be finite and not 0";
    }
    if (!columns_fit(p.b_off, p.states, p.xdbl_columns)) {
        return "columns [b_off, b_off + N) lie outside the rows of xdbl";
    }
    if (!columns_fit(p.c_off, p.states, p.xdbl_columns)) {
        return "columns [c_off, c_off + N) lie outside the rows of xdbl";
    }
    if (p.low_rank == 1 && p.rank < 1) {
        return "rank of dt_w is below 1";
    }
    if (p.low_rank == 1 && !columns_fit(p.dt_off, p.rank, p.xdbl_columns)) {
        return "columns [dt_off, dt_off + r) lie outside the rows of xdbl";
    }
    if (!columns_fit(p.z_off, p.channels, p.xz_columns)) {
        return "columns [z_off, z_off + D) lie outside the rows of xz";
    }
    return nullptr;
}

const char* validate(const SelectiveScanParams& p) noexcept {
    if (const char* fault = validate_shape(p)) {
        return fault;
    }
    const char* fault = check_pointers({
        {p.u, "u is a null pointer", "u is not 16-byte aligned"},
        {p.dt, "dt is a null pointer", "dt is not 16-byte aligned"},
        {p.A, "A is a null pointer", "A is not 16-byte aligned"},
        {p.bc, "bc is a null pointer", "bc is not 16-byte aligned"},
        {p.d_skip, "Dskip is a null pointer", "Dskip is not 16-byte aligned"},
        {p.dt_bias, "dt_bias is a null pointer", "dt_bias is not 16-byte aligned"},
        {p.y, "y is a null pointer", "y is not 16-byte aligned"},
    });
    if (fault == nullptr && p.has_z == 1) {
        fault = check_pointers({{p.z, "z is a null pointer", "z is not 16-byte aligned"}});
    }
    return fault;
}

const char* validate(const BiSelectiveScanParams& p) noexcept {
    if (const char* fault = validate_shape(p)) {
        return fault;
    }
    return check_pointers({
        {p.u2, "u2 is a null pointer", "u2 is not 16-byte aligned"},
        {p.dt, "dt is a null pointer", "dt is not 16-byte aligned"},
        {p.xdbl, "xdbl is a null pointer", "xdbl is not 16-byte aligned"},
        {p.A, "A is a null pointer", "A is not 16-byte aligned"},
        {p.d_skip, "Dskip is a null pointer", "Dskip is not 16-byte aligned"},
        {p.dt_bias, "dt_bias is a null pointer", "dt_bias is not 16-byte aligned"},
        {p.xz, "xz is a null pointer", "xz is not 16-byte aligned"},
        {p.y, "y is a null pointer", "y is not 16-byte aligned"},
    });
}

}  // namespace vim_plugins
