# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.hpclab.swarm.plugins.module_utils._preflight import findings


class FilterModule:
    def filters(self):
        return {"preflight_findings": findings}
