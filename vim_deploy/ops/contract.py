"""Domain, versions and limits of the custom ops, shared by the exporter and the plugin library.

``plugins/include/vim_plugins/contract.h`` states the same for C++, the names of ``vim_deploy.ops``'
table among it.
"""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "vim_deploy"
DOMAIN_VERSION: Final = 1
#: Plugin version and namespace under which TensorRT finds the op.
PLUGIN_VERSION: Final = "1"
PLUGIN_NAMESPACE: Final = ""

#: Grows whenever the meaning, the inputs or the attributes of an op change.
CONTRACT_VERSION: Final = 1

#: Largest state size the kernels support.
MAX_STATE: Final = 64
#: Largest number of convolution taps the kernels support.
MAX_CONV_WIDTH: Final = 16
#: Largest side o of pooled boxes, and of a pyramid's maps, that the kernels support.
MAX_ROI_OUTPUT: Final = 64
MAX_MAP_SIDE: Final = 65536
