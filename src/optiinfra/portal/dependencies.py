"""What handlers of pages take as parameters."""

from typing import Annotated

from fastapi import Depends, Form, Request

from optiinfra.portal.joined import JoinedAddresses
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access, Sessions


async def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


async def _joined(request: Request) -> JoinedAddresses:
    joined: JoinedAddresses = request.app.state.joined
    return joined


CurrentPlatform = Annotated[Platform, Depends(_platform)]
CurrentSessions = Annotated[Sessions, Depends(_sessions)]
CurrentAccess = Annotated[Access, Depends(_access)]
Joined = Annotated[JoinedAddresses, Depends(_joined)]
FormField = Annotated[str, Form()]
