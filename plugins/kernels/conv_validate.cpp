//! What the convolution refuses, and the words for it.
#include "checks.h"
#include "vim_plugins/contract.h"
#include "vim_plugins/validate.h"

namespace vim_plugins {

const char* validate_shape(const BiCausalConvParams& p) noexcept {
    if (const char* fault = check_sizes(p.batch, p.length, p.channels, p.type)) {
        return fault;
    }
    if (p.width < 1) {
        return "convolution width W is below 1";
    }
    if (p.width > kMaxConvWidth) {
        return "convolution width W is above 16";
    }
    if (!columns_fit(p.x_off, p.channels, p.xz_columns)) {
        return "columns [x_off, x_off + D) lie outside the rows of xz";
    }
    return nullptr;
}

const char* validate(const BiCausalConvParams& p) noexcept {
    if (const char* fault = validate_shape(p)) {
        return fault;
    }
    return check_pointers({
        {p.xz, "xz is a null pointer", "xz is not 16-byte aligned"},
        {p.w, "w is a null pointer", "w is not 16-byte aligned"},
        {p.bias, "b is a null pointer", "b is not 16-byte aligned"},
        {p.u2, "u2 is a null pointer", "u2 is not 16-byte aligned"},
    });
}

}  // namespace vim_plugins
