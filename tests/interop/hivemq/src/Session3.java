// MQTT 3.1.1 by the HiveMQ client.

import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt3.message.connect.Mqtt3Connect;
import com.hivemq.client.mqtt.mqtt3.message.publish.Mqtt3Publish;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

record Session3(Mqtt3AsyncClient client, BlockingQueue<Client.Message> messages) implements Client.Session {
    @Override
    public boolean connect(Client.Step step) throws Exception {
        // Before connecting: what a kept session is owed comes right behind CONNACK.
        client.publishes(MqttGlobalPublishFilter.ALL, this::received);
        var connect = Mqtt3Connect.builder().cleanSession(!step.persistent()).keepAlive(30);
        if (step.user() != null) {
            connect = connect.simpleAuth()
                    .username(step.user())
                    .password(step.password().getBytes(StandardCharsets.UTF_8))
                    .applySimpleAuth();
        }
        if (step.will() != null) {
            connect = connect.willPublish()
                    .topic(step.will().topic())
                    .payload(step.will().payload().getBytes(StandardCharsets.UTF_8))
                    .qos(MqttQos.fromCode(step.will().qos()))
                    .retain(step.will().retain())
                    .applyWillPublish();
        }
        return client.connect(connect.build()).get(Client.WAIT, TimeUnit.SECONDS).isSessionPresent();
    }

    private void received(Mqtt3Publish publish) {
        String payload = new String(publish.getPayloadAsBytes(), StandardCharsets.UTF_8);
        messages.add(new Client.Message(
                publish.getTopic().toString(), payload, publish.getQos().getCode(), publish.isRetain()));
    }

    @Override
    public int subscribe(Client.Filter filter) throws Exception {
        return client.subscribeWith()
                .topicFilter(filter.topic())
                .qos(MqttQos.fromCode(filter.qos()))
                .send()
                .get(Client.WAIT, TimeUnit.SECONDS)
                .getReturnCodes()
                .get(0)
                .getCode();
    }

    @Override
    public void publish(Client.Step step) throws Exception {
        client.publishWith()
                .topic(step.topic())
                .payload(step.payload().getBytes(StandardCharsets.UTF_8))
                .qos(MqttQos.fromCode(step.qos()))
                .retain(step.retain())
                .send()
                .get(Client.WAIT, TimeUnit.SECONDS);
    }

    @Override
    public void disconnect() throws Exception {
        client.disconnect().get(Client.WAIT, TimeUnit.SECONDS);
    }
}
