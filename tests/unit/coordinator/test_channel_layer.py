"""The in-memory channel layer, from the threads that Celery's tasks run in."""

from __future__ import annotations

import asyncio
import threading

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from coordinator.channel_layer import HomeLoopChannelLayer


async def test_a_message_from_another_thread_wakes_the_receiver() -> None:
    layer = HomeLoopChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    waiting = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    thread = threading.Thread(target=lambda: async_to_sync(layer.group_send)("g", {"type": "x"}))
    thread.start()
    assert await asyncio.wait_for(waiting, 5) == {"type": "x"}
    await asyncio.to_thread(thread.join)


async def test_errors_come_back_to_the_other_thread() -> None:
    layer = HomeLoopChannelLayer(capacity=1)
    channel = await layer.new_channel()
    waiting = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    await layer.send(channel, {"type": "1"})
    await waiting
    await layer.send(channel, {"type": "2"})

    def send() -> None:
        with pytest.raises(ChannelFull):
            async_to_sync(layer.send)(channel, {"type": "3"})

    await asyncio.to_thread(send)
